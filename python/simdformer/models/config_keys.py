# SPDX-License-Identifier: Apache-2.0
"""The keys of config.json that no architecture applies.

Keys that no class of transformers reads have no effect; a warning names them. The list of applied keys is
common to all architectures, so it may contain a key that the present one does not have.
"""

from __future__ import annotations

from collections.abc import Mapping
from typing import Any

from simdformer.models.config_fields import empty


def _words(text: str) -> list[str]:
    return text.split()


# These would change the result and are not implemented, so they must be empty.
_REFUSED = ("adapters", "per_layer_config", "pruned_heads", "quantization_config")

_APPLIED = _words(
    "activation activation_function add_cross_attention architectures attention_bias"
    " classifier_activation classifier_bias classifier_pooling dim embedding_size"
    " global_attn_every_n_layers global_rope_theta head_dim hidden_act hidden_activation hidden_dim"
    " hidden_size id2label intermediate_size is_causal is_decoder layer_norm_eps layer_norm_epsilon"
    " layer_norm_type layer_types local_attention local_rope_theta logn_attention_scale"
    " max_position_embeddings max_window_layers mlp_bias model_type n_embd n_head n_heads n_inner n_layer"
    " n_layers n_positions norm_bias norm_eps num_attention_heads num_hidden_layers num_key_value_heads"
    " num_labels output_hidden_states pack_qkv pad_token_id partial_rotary_factor position_embedding_type"
    " relative_attention_num_buckets rms_norm_eps rope_parameters rope_scaling rope_theta"
    " rotary_emb_base sbert_ce_default_activation_function sentence_transformers sliding_window"
    " tokenizer_class type_vocab_size use_sliding_window use_task_id vocab_size"
    # T5's
    " d_ff d_kv d_model feed_forward_proj num_heads num_layers relative_attention_max_distance"
    # Gemma's
    " query_pre_attn_scalar rope_local_base_freq sliding_window_pattern use_bidirectional_attention"
    # Jina's
    " auto_map default_task feed_forward_type lora_adaptations lora_alpha lora_rank"
    # ALBERT's
    " inner_group_num num_hidden_groups"
    # DeBERTa's
    " attention_head_size conv_kernel_size max_relative_positions norm_rel_ebd pooler_hidden_act"
    " pos_att_type position_biased_input position_buckets relative_attention share_att_key"
    # nomic-embed-text's; they must have the values of the published models
    " causal mlp_fc1_bias mlp_fc2_bias num_experts parallel_block prenorm qkv_proj_bias"
    " rotary_emb_fraction rotary_emb_interleaved rotary_emb_scale_base rotary_scaling_factor use_rms_norm"
    " expert_choice_router ffn_div moe_every_n_layers moe_normalize_expert_weights moe_top_k norm_mlp"
    " num_shared_experts"
)

# Names of labels, tokens and releases; the stored dtype (numbers are converted to float32); initial values
# and dropout, which only training uses; how torch computes the same numbers; heads and poolers that are not
# run; generation.
_NO_EFFECT = [
    "_attn_implementation",
    "_attn_implementation_autoset",
    "_flash_attn_2_enabled",
    "_name_or_path",
    "_num_labels",
    "_sliding_window_pattern",
    "attn_implementation",
    "attn_logit_softcapping",
    "final_logit_softcapping",
    "chunk_size_feed_forward",
    "dtype",
    "experts_implementation",
    "finetuning_task",
    "is_encoder_decoder",
    "is_composition",
    "label2id",
    "name_or_path",
    "output_attentions",
    "problem_type",
    "return_dict",
    "torch_dtype",
    "torchscript",
    "tie_word_embeddings",
    "tie_encoder_decoder",
    "transformers_version",
    "use_bfloat16",
    "use_cache",
    "use_return_dict",
    "task_specific_params",
    "prefix",
    "xla_device",
    "attention_dropout",
    "attention_probs_dropout_prob",
    "attn_pdrop",
    "classifier_dropout",
    "classifier_dropout_prob",
    "down_scale_factor",
    "gap_size",
    "net_structure_type",
    "num_memory_blocks",
    "decoder_start_token_id",
    "dense_act_fn",
    "dropout",
    "dropout_rate",
    "embd_pdrop",
    "embedding_dropout",
    "gradient_checkpointing",
    "hidden_dropout_prob",
    "initializer_cutoff_factor",
    "initializer_factor",
    "initializer_range",
    "is_gated_act",
    "num_decoder_layers",
    "scale_decoder_outputs",
    "layerdrop",
    "mlp_dropout",
    "model_max_length",
    "parallel_block_tied_norm",
    "moe_impl",
    "moe_resid_pdrop",
    "router_aux_loss_coef",
    "qa_dropout",
    "reorder_and_upcast_attn",
    "resid_pdrop",
    "scale_attn_by_inverse_layer_idx",
    "scale_attn_weights",
    "seq_classif_dropout",
    "sinusoidal_pos_embds",
    "summary_activation",
    "summary_first_dropout",
    "summary_last_dropout",
    "summary_proj_to_labels",
    "summary_type",
    "summary_use_proj",
    "task_type_vocab_size",
    "bos_token_id",
    "cls_token_id",
    "decoder_start_token_id",
    "eos_token_id",
    "mask_token_id",
    "sep_token_id",
    "directionality",
    "generator_hidden_size",
    "cls_dropout",
    "conv_act",
    "conv_groups",
    "legacy",
    "pooler_dropout",
    "pooler_fc_size",
    "pooler_hidden_size",
    "pooler_num_attention_heads",
    "pooler_num_fc_layers",
    "pooler_size_per_head",
    "pooler_type",
    "logn_attention_clip1",
    "rotary_dim",
    "max_trained_positions",
    "dense_seq_output",
    "fused_bias_fc",
    "fused_dropout_add_ln",
    "last_layer_subset",
    "pad_vocab_size_multiple",
    "rotary_emb_pct",
    "unpad_inputs",
    "use_flash_attn",
    "use_memory_efficient_attention",
    "use_xentropy",
    "compile_model",
    "decoder_bias",
    "deterministic_flash_attn",
    "masked_prediction",
    "reference_compile",
    "repad_logits_with_grad",
    "sparse_pred_ignore_index",
    "sparse_prediction",
    "vocab_size_with_padding",
    "clf_use_attention_mask",
    "classifier_norm",
    "clip_qkv",
    "emb_pdrop",
    "emb_pooler",
    "load_trained_adapters",
    "lora_dropout_p",
    "lora_main_params_trainable",
    "matryoshka_dimensions",
    "task_instructions",
    "truncate_dim",
    "use_reentrant",
    "pretraining_tp",
    "rope_interleaved",
    "add_pooling_layer",
    "mlm_probability",
    "mup",
    "output_past",
    "return_all_hiddens",
    "vocab_type",
    "bad_words_ids",
    "begin_suppress_tokens",
    "cross_attention_hidden_size",
    "diversity_penalty",
    "do_sample",
    "early_stopping",
    "encoder_no_repeat_ngram_size",
    "exponential_decay_length_penalty",
    "forced_bos_token_id",
    "forced_eos_token_id",
    "length_penalty",
    "max_length",
    "min_length",
    "no_repeat_ngram_size",
    "num_beam_groups",
    "num_beams",
    "num_return_sequences",
    "output_scores",
    "remove_invalid_values",
    "repetition_penalty",
    "return_dict_in_generate",
    "suppress_tokens",
    "temperature",
    "tf_legacy_loss",
    "top_k",
    "top_p",
    "typical_p",
]
_KNOWN = frozenset((*_REFUSED, *_APPLIED, *_NO_EFFECT))


def unknown_keys(config: Mapping[str, Any]) -> list[str]:
    """The keys that nothing reads. Errors: ValueError for a key that would change the result."""
    for name in _REFUSED:
        empty(config, name)
    return [name for name in config if name not in _KNOWN]

"""Texts of a model with a chat template are rendered as messages, in jinja2's sandbox."""

from __future__ import annotations

import json

import pytest

from simdformer import CrossEncoder, SentenceTransformer
from simdformer.text.chat_template import load_chat_template
from tests.support import assert_same_bits
from tests.support.model_fixtures import (
    PAIRS,
    tokenizer_json,
    write_cross_encoder,
    write_files,
    write_model,
)

pytest.importorskip("jinja2")

FLAT = "{% for m in messages %}[SEP]{{ m['role'][0] }} {{ m['content'] }}{% endfor %}[MASK]"
PARTS = "{% for m in messages %}{% for p in m.content if p['type'] == 'text' %}[SEP]{{ p.text }}{% endfor %}{% endfor %}"
TEXTS = ["a cab", "deed", ""]
# A tokenizer without special tokens; BERT's class would add them.
BARE = {
    "tokenizer.json": tokenizer_json() | {"post_processor": None},
    "tokenizer_config.json": {"tokenizer_class": "PreTrainedTokenizerFast"},
}


def message_config(**message):
    entry = {"method": "forward", "method_output_name": "last_hidden_state"}
    config = {"text": entry, "message": entry | message}
    return {"modality_config": config, "module_output_name": "token_embeddings"}


def write_plain(folder, **files):
    """A folder as saved by transformers, with a template."""
    given = {"modules.json": None, "chat_template.jinja": FLAT} | files
    return write_model(folder, files=given)


@pytest.fixture
def bare(tmp_path):
    """The same model with a tokenizer that adds no special tokens."""
    files = {"modules.json": None} | BARE
    return SentenceTransformer(write_model(tmp_path / "bare", files=files))


def template(tmp_path, source, variables=None, **options):
    write_files(tmp_path, {"chat_template.jinja": source})
    arguments = {"form": "auto", "model_type": "bert", "variables": variables or {}} | options
    return load_chat_template(tmp_path, {}, **arguments)


def rendered(tmp_path, source, text="x", prompt=None, **options):
    return template(tmp_path, source, **options).render(
        text, prompt, lambda t: [0, *map(ord, t)], None
    )


@pytest.mark.parametrize(
    "files",
    [
        {},
        {
            "chat_template.jinja": None,
            "tokenizer_config.json": {"chat_template": FLAT, "pad_token": "[PAD]"},
        },
        {
            "chat_template.jinja": None,
            "tokenizer_config.json": {"chat_template": [{"name": "default", "template": FLAT}]},
        },
    ],
    ids=["file", "config", "named"],
)
def test_a_text_of_a_plain_folder_becomes_a_message(tmp_path, bare, files):
    model = SentenceTransformer(write_plain(tmp_path / "m", **files))
    expected = bare.encode([f"[SEP]u {text}[MASK]" for text in TEXTS])
    assert_same_bits(model.encode(TEXTS), expected)
    assert_same_bits(model.encode(TEXTS[0]), expected[0])
    assert_same_bits(model.outputs(TEXTS[0]).sentence_embedding, expected[0])


def test_a_prompt_becomes_a_system_message(tmp_path, bare):
    model = SentenceTransformer(write_plain(tmp_path / "m"), prompts={"query": "zz"})
    expected = bare.encode("[SEP]s zz[SEP]u a cab[MASK]")
    assert_same_bits(model.encode_query("a cab"), expected)


def test_a_saved_folder_decides_whether_texts_become_messages(tmp_path, bare):
    folder = write_model(tmp_path / "m", files={"chat_template.jinja": FLAT})
    plain = SentenceTransformer(write_model(tmp_path / "plain"))
    assert_same_bits(SentenceTransformer(folder).encode(TEXTS), plain.encode(TEXTS))
    write_files(folder, {"sentence_bert_config.json": message_config(format="flat")})
    expected = bare.encode([f"[SEP]u {text}[MASK]" for text in TEXTS])
    assert_same_bits(SentenceTransformer(folder).encode(TEXTS), expected)


def test_template_text_after_the_content_is_not_truncated(tmp_path, bare):
    config = message_config(format="flat") | {"max_seq_length": 6}
    files = {"chat_template.jinja": FLAT, "sentence_bert_config.json": config}
    model = SentenceTransformer(write_model(tmp_path / "m", files=files))
    with pytest.warns(UserWarning, match="longer than max_seq_length=6"):
        got = model.encode("a b c d e f g")
    assert_same_bits(got, bare.encode("[SEP]u a b c[MASK]"))
    config["processing_kwargs"] = {"chat_template": {"restore_suffix": False}}
    write_files(tmp_path / "m", {"sentence_bert_config.json": config})
    with pytest.warns(UserWarning, match="longer than max_seq_length=6"):
        got = SentenceTransformer(tmp_path / "m").encode("a b c d e f g")
    assert_same_bits(got, bare.encode("[SEP]u a b c d"))


def test_each_part_of_a_pair_becomes_a_message(tmp_path):
    folder = write_cross_encoder(tmp_path / "m", files={"chat_template.jinja": FLAT})
    bare = CrossEncoder(write_cross_encoder(tmp_path / "b", files=BARE))
    expected = bare.predict([(f"[SEP]q {a}[SEP]d {b}[MASK]", "") for a, b in PAIRS])
    assert_same_bits(CrossEncoder(folder).predict(PAIRS), expected)


@pytest.mark.parametrize(
    ("name", "files", "expected"),
    [
        ("b", {"additional_chat_templates/b.jinja": "named"}, "named"),
        (None, {"additional_chat_templates/b.jinja": "named"}, FLAT),
        ("default", {"additional_chat_templates/b.jinja": "named"}, FLAT),
        ("{{ 1 }}", {}, "{{ 1 }}"),
        ("{{ 1 }}", {"additional_chat_templates/b.jinja": "named"}, "{{ 1 }}"),
        (
            "b",
            {
                "chat_template.jinja": None,
                "tokenizer_config.json": {"chat_template": [{"name": "b", "template": "listed"}]},
            },
            "listed",
        ),
    ],
    ids=["file", "file, default", "default by name", "text", "text beside files", "list"],
)
def test_a_template_may_be_chosen_by_name_or_given(tmp_path, name, files, expected):
    write_files(tmp_path, {"chat_template.jinja": FLAT} | files)
    variables = {} if name is None else {"chat_template": name}
    options = {"form": "auto", "model_type": "bert", "variables": variables}
    found = load_chat_template(tmp_path, {}, **options)
    expected = load_chat_template(
        write_source(tmp_path / "other", expected), {}, **options | {"variables": {}}
    )
    assert found.render("x", "y", list, None) == expected.render("x", "y", list, None)


def write_source(folder, source):
    write_files(folder, {"chat_template.jinja": source})
    return folder


@pytest.mark.parametrize(
    ("files", "place"),
    [
        ({"additional_chat_templates/b.jinja": "x"}, "additional_chat_templates: "),
        ({"chat_template.jinja": "x"}, "additional_chat_templates: "),
        ({"tokenizer_config.json": {"chat_template": "x"}}, r"tokenizer_config\.json: "),
    ],
)
def test_an_unknown_template_name_is_refused(tmp_path, files, place):
    write_files(tmp_path, files)
    options = {"form": "auto", "model_type": "bert", "variables": {"chat_template": "c"}}
    with pytest.raises(ValueError, match=rf"{place}chat_template has no template named 'c'"):
        load_chat_template(tmp_path, {}, **options)


def test_a_template_that_drops_a_part_of_a_pair_is_refused(tmp_path):
    source = "{% for m in messages if m.role == 'query' %}{{ m.content }}{% endfor %}"
    folder = write_cross_encoder(tmp_path / "m", files={"chat_template.jinja": source})
    with pytest.raises(ValueError, match=r"chat_template\.jinja: the chat template drops"):
        CrossEncoder(folder)


def test_the_form_of_the_content_is_detected_from_the_template(tmp_path):
    assert rendered(tmp_path, PARTS) == "[SEP]x"
    assert rendered(tmp_path, FLAT) == "[SEP]u x[MASK]"
    assert rendered(tmp_path, "{{ messages[0].content }}", form="structured").startswith("[{")


def test_variables_reach_the_template(tmp_path):
    source = "{{ messages[0].content }}{% if add_generation_prompt %} {{ tone }}{% endif %}{{ eos_token }}"
    variables = {"add_generation_prompt": True, "tone": "low"}
    write_files(tmp_path, {"tokenizer_config.json": {"eos_token": {"content": "<e>"}}})
    assert rendered(tmp_path, source, variables=variables) == "x low<e>"
    assert rendered(tmp_path, source) == "x<e>"


def test_tags_and_filters_of_transformers_are_known(tmp_path):
    source = "{% generation %}{{ messages | tojson }}{% endgeneration %}{% for i in range(9) %}{% if i == 2 %}{% break %}{% endif %}{{ i }}{% endfor %}"
    said = json.dumps([{"role": "user", "content": "é"}], ensure_ascii=False)
    assert rendered(tmp_path, source, "é") == said + "01"


@pytest.mark.parametrize(
    ("source", "match"),
    [
        ("{% for %}", "Expected an expression"),
        ("{{ raise_exception('no user') }}", "no user"),
        ("{{ missing.attribute }}", "'missing' is undefined"),
        ("{{ ''.__class__.__mro__ }}", "unsafe"),
        ("{{ messages.append(1) }}", "unsafe|not safely callable"),
        ("{{ (dict.__class__).mro() }}", "unsafe|undefined"),
        ("{% set n = namespace(__class__=1) %}", "must not contain the name '__class__'"),
        ("{% set n = namespace() %}{% set n._x = 1 %}", "must not contain the name '_x'"),
        ("{{ range(1000000) | list }}", "[Rr]ange too big"),
    ],
)
def test_a_template_that_fails_or_accesses_internals_is_an_error_naming_its_file(
    tmp_path, source, match
):
    with pytest.raises(ValueError, match=rf"chat_template\.jinja: chat template: .*({match})"):
        rendered(tmp_path, source)


@pytest.mark.parametrize(
    ("given", "match"),
    [
        (5, "chat_template must be a string"),
        ([5], "chat_template must list objects with name and template"),
        ([{"name": "x", "template": "y"}], "chat_template has no template named 'default'"),
    ],
)
def test_a_template_of_another_kind_is_refused(tmp_path, given, match):
    files = {"chat_template.jinja": None, "tokenizer_config.json": {"chat_template": given}}
    with pytest.raises(ValueError, match=rf"tokenizer_config\.json: {match}"):
        SentenceTransformer(write_plain(tmp_path / "m", **files))


def test_another_thread_may_clear_the_known_suffixes(tmp_path):
    class Cleared(dict):
        def __setitem__(self, key, value):
            pass

    chat = template(tmp_path, FLAT)
    chat._suffixes = Cleared()
    ids = [*map(ord, "[MASK]")]
    found = chat.render("x", None, lambda text: [0, *map(ord, text)], None)
    assert list(found.suffix) == ids

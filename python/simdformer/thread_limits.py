# SPDX-License-Identifier: Apache-2.0
"""threadpoolctl shows how many threads simdformer uses, and can limit them."""

from __future__ import annotations

from functools import cache

from simdformer import _core


@cache
def register_threadpoolctl() -> None:
    """Make threadpoolctl list simdformer and limit its threads.

    `import simdformer` does this if threadpoolctl was imported before. A program that imports it later
    calls this function once, before `threadpool_limits` or `threadpool_info`. A second call has no effect.
    The limit holds for all calls of the process that start while it is set, for any `num_threads`.

    Raises
    ------
    ImportError
        If threadpoolctl is not installed, or older than 3.2.

    Examples
    --------
    >>> import simdformer, threadpoolctl
    >>> simdformer.register_threadpoolctl()
    >>> with threadpoolctl.threadpool_limits(limits=1, user_api="simdformer"):
    ...     simdformer.show_config("dicts")["threads"]["count"]
    1
    """
    import threadpoolctl

    if not hasattr(threadpoolctl, "register"):
        raise ImportError(
            f"threadpoolctl {threadpoolctl.__version__} takes no controllers: install 3.2 or later"
        )

    class SimdformerController(threadpoolctl.LibController):  # type: ignore[misc]
        user_api = "simdformer"
        internal_api = "simdformer"
        filename_prefixes = ("_core.",)
        # other packages have a _core too, without this symbol
        check_symbols = ("simdformer_thread_provider",)

        def get_num_threads(self) -> int:
            return _core.num_threads()

        def set_num_threads(self, num_threads: int) -> None:
            _core.limit_threads(num_threads)

        def get_version(self) -> str:
            from simdformer import __version__

            return __version__

        def set_additional_attributes(self) -> None:
            self.threading_layer = _core.thread_provider()

    threadpoolctl.register(SimdformerController)

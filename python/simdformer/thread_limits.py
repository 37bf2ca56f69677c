# SPDX-License-Identifier: Apache-2.0
"""threadpoolctl sees how many threads simdformer uses, and may limit them."""

from __future__ import annotations

from functools import cache

from simdformer import _core


@cache
def register_threadpoolctl() -> None:
    """Make threadpoolctl list simdformer and limit its threads.

    Where threadpoolctl is imported first, `import simdformer` has done so. A program that imports it
    later calls this once, before `threadpool_limits` or `threadpool_info`:

        with threadpoolctl.threadpool_limits(limits=1, user_api="simdformer"):
            model.encode(texts)

    The limit holds for calls of all threads of the process that begin under it, whatever `num_threads`
    they were given. A second call does nothing.

    Raises: ImportError if threadpoolctl is not installed or older than 3.2.
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
        # Other packages have a _core too; theirs does not export this.
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

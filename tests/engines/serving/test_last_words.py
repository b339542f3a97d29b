"""What is told of an engine's log when it dies: excerpts of what SGLang and vLLM wrote when a worker was killed."""

from pathlib import Path

import pytest

from mezo.engines.serving import last_words as module
from mezo.engines.serving.last_words import last_words, tail

SGLANG_KILLED = """
Multi-thread loading shards: 100% Completed | 1/1 [00:00<00:00, 286.69it/s]
[2026-11-23 03:12:15] Subprocess scheduler_0 (pid=13468) crashed with exit code -9. Triggering SIGQUIT for cleanup...
[2026-11-23 03:12:15] SIGQUIT received. signum=None, frame=None. It usually means one child failed.
[2026-11-23 03:12:20] No live scheduler processes found; skipping py-spy and CUDA coredump.
"""
VLLM_KILLED = """
[W1123 03:14:41.410432742 utils.cpp:68] Warning: NUMA binding: Using MEMBIND policy for memory allocation on the NUMA nodes.
(EngineCore pid=14444) ERROR 11-23 03:14:57 [multiproc_executor.py:315] Worker proc VllmWorker-1 died unexpectedly (exit code: -9), shutting down executor.
(EngineCore pid=14444) ERROR 11-23 03:15:06 [dump_input.py:79] Dumping scheduler output for model execution: SchedulerOutput(text='ValueError: out of memory')
(EngineCore pid=14444) ERROR 11-23 03:15:06 [core.py:1512] EngineCore encountered a fatal error.
(EngineCore pid=14444) ERROR 11-23 03:15:06 [core.py:1512] Traceback (most recent call last):
(EngineCore pid=14444) ERROR 11-23 03:15:06 [core.py:1512]     raise RuntimeError("cancelled")
(EngineCore pid=14444) ERROR 11-23 03:15:06 [core.py:1512] RuntimeError: cancelled
EngineDeadError: EngineCore encountered an issue. See stack trace (above) for the root cause.
RuntimeError: cancelled
(MainProcess pid=14167) INFO 11-23 03:15:11 [core_client.py:777] [shutdown] MPClient: complete
"""
PYTHON = """
Traceback (most recent call last):
  File "scheduler.py", line 12, in step
    raise ValueError("unknown quantization")
ValueError: unknown quantization 'q3'
During handling of the above exception, another exception occurred:
EOFError: Ran out of input
  done
"""
MEMORY = """
torch.OutOfMemoryError: CUDA out of memory. Tried to allocate 2.00 GiB.
[2026-11-23 03:12:15] Subprocess scheduler_0 (pid=13468) crashed with exit code -9. Triggering SIGQUIT for cleanup...
RuntimeError: cancelled
"""


@pytest.mark.parametrize(
    ("log", "told"),
    [
        (SGLANG_KILLED, "scheduler_0 (pid=13468) crashed with exit code -9."),
        (VLLM_KILLED, "Worker proc VllmWorker-1 died unexpectedly (exit code: -9)"),
        (PYTHON, "ValueError: unknown quantization 'q3'"),
        (MEMORY, "CUDA out of memory. Tried to allocate 2.00 GiB."),
        ("EngineDeadError: EngineCore encountered an issue.\nbye", "EngineDeadError: "),
        ("a\nValueError: x\n  done \n", "ValueError: x"),
        ("a\n\n b  c\n", "b c"),
        ("", "none"),
        (" \n", "none"),
    ],
)
def test_the_line_that_says_what_happened(log: str, told: str) -> None:
    assert told in last_words(log)


def test_it_is_one_short_printable_line_without_secrets(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setenv("HF_TOKEN", "hf_0123456789")
    said = last_words(f"RuntimeError: \x1b[31mhf_0123456789 {'x' * 1000}")
    assert said.startswith("RuntimeError: \\x1b[31m*** xxx")
    assert len(said) == 300


def test_of_a_long_log_the_end_is_read(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(module, "_TAIL", 10)
    log = tmp_path / "log"
    log.write_text(f"{'x' * 100}\nthe end")
    assert tail(log) == "xx\nthe end"
    assert tail(tmp_path / "none") == ""

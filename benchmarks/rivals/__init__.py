"""The same contract-net rounds on other systems; each file runs alone in an environment of its own.

A round is 2N + 2 messages of 200 bytes: N calls, N proposals, 1 award, 1 done; every participant is a process.
Each script prints one JSON object: {"rounds_per_s", "p50_ms", "p99_ms", "rss_mib", "rounds"}.
"""

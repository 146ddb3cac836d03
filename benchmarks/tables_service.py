"""The table of the service under load."""

from __future__ import annotations

from typing import Any

from cells import span


def service(result: dict[str, Any]) -> str:
    """Throughput beside the predictor alone, what the clients got, health and memory."""
    rounds, health, memory, limits = (result[name] for name in ("rounds", "healthz", "memory", "bounds"))
    answers = ", ".join(f"{count:,} × {status}" for status, count in sorted(result["statuses"].items()))
    failed = sum(count for status, count in result["statuses"].items() if status not in result["allowed"])
    lines = ["| figure | measured | asked for |", "|---|---|---|"]
    for key, words in (
        ("network", "the network alone, batches of 8, films/s"),
        ("bare", "the predictor alone, films/s"),
        ("served", "the service, films/s"),
    ):
        lines.append(f"| {words}: median (range) | {span([one[key] for one in rounds], 1)} | |")
    lines.append(f"| the ratio of the two | {span([one['ratio'] for one in rounds], 3)} | ≥ {limits['ratio']} |")
    lines.append(f"| answers by status | {answers} | none but 200, 422, 429, 503 |")
    lines.append(f"| failed requests | {failed} | 0 |")
    times = f"{health['p50_ms']:.1f}, {health['p99_ms']:.1f}, {health['max_ms']:.1f}"
    lines.append(f"| /healthz, ms: p50, p99, max of {health['n']:,} | {times} | p99 ≤ {limits['healthz_p99_ms']:.0f} |")
    grown = f"{memory['first_mib']:.0f} to {memory['last_mib']:.0f}, most {memory['max_mib']:.0f}"
    lines.append(f"| resident memory, MiB: first, last | {grown} | |")
    words = f"{memory['growth']:+.1%}".replace("-", "−")
    lines.append(f"| its last fifth against its second | {words} | ≤ {limits['memory_growth']:+.0%} |")
    kind = "phantoms" if result["drawn"] else "radiographs"
    note = f"{result['clients']} clients, {result['seconds']:.0f} s in {len(rounds)} rounds, {result['films']} {kind}"
    tail = f"of {result['kilobytes']:.0f} kB (median), {result['processors']} processors, clients included"
    return "\n".join([*lines, "", f"`{result['command']}`: {note} {tail}; load average {result['load_average']:.1f}."])

"""What toril costs, against what, and how to measure it again.

`python -m benchmarks` has the commands; `docs/decisions/benchmarks.md` says why it measures as it does.

- `contestants/` — one adapter each; `harness.py` makes a producer and a worker of them
- `workloads.py` — what is measured; `arena.py` — the server and the processes; `cells.py` — one measurement
- `runner.py` — rounds; `measures.py` — medians, percentiles, ratios; `targets.py` — what must hold
- `report.py`, `chart.py` — tables, the page, the chart
- `quick.py`, `scale.py`, `profile.py` — the other commands
"""

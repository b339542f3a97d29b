"""Ablation studies: a plan, bound to settings, becomes runs, numbers with uncertainty, and a report."""

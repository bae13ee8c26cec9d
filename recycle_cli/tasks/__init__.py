"""Tasks: what labels, loss, metrics and predictions mean. One file a task, one contract."""

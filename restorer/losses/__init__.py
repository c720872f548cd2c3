"""What players are told to make small: functions of tensors, a scalar out, mean over everything, no weight inside."""

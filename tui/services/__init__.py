"""What works behind the screen: the engine's answers, tasks, what is kept."""

"""What a learner is fed from: the memory that its algorithm consumes (`choice.memory_for`)."""

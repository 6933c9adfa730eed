"""Trainer of the small MSA model: corpus, tasks, model, training, evaluation, export."""

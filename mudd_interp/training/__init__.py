"""The small models of this project, from scratch: corpus, tokenizer, trainer, evaluation."""

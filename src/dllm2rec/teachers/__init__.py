"""Teachers: a language model, a sentence encoder or plain counting becomes knowledge that students can learn from."""

"""OpenAI's protocols, both ways: what OpenAI and every compatible server speak."""

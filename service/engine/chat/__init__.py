"""What models are asked over the chat completions of OpenAI, and what becomes of their answers."""

"""A finished model behind an API and a page.

In come HTTP requests in OpenAI's form; out come completions, streamed or whole, and the page that
asks for them. One thread generates, for all clients.
"""

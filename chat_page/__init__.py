# SPDX-License-Identifier: Apache-2.0
"""A chat page in the browser for an OpenAI endpoint.

The page is a client like any other: it reaches the model by the official `openai` package, and nothing else at all. It
has no analytics and no fonts or scripts from elsewhere, and its security policy keeps the browser from fetching what an
answer links to.

Keys: where the endpoint needs one, each visitor types their own into the page's settings. It stays in that browser tab,
goes along with each request and is stored nowhere. OPENAI_API_KEY in the environment replaces the field, and is then
used for everybody who can reach the page; the launcher never sets it. TLS: the launcher has the page trust the server's
own certificate (`--api-certificate`) and serve with it as well, since keys pass over both ways.

It listens on loopback unless told otherwise. Conversations are kept in this process, each under a random number that
its tab knows, so that a reload finds it again; they are gone when the page ends, and so are the pictures.
"""

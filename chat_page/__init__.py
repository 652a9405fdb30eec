# SPDX-License-Identifier: Apache-2.0
"""A chat page in the browser for an OpenAI endpoint.

The page is an ordinary client: it uses the official `openai` package and connects to nothing but the endpoint. It has
no analytics and loads no fonts or scripts from other sites. Its security policy keeps the browser from fetching what an
answer links to.

Keys: if the endpoint needs one, each visitor enters their own in the page's settings. It stays in that browser tab, is
sent with each request and is stored nowhere. OPENAI_API_KEY in the environment replaces the field and is then used for
everybody who can reach the page; the launcher never sets it. TLS: the launcher makes the page trust the server's own
certificate (`--api-certificate`) and serve with the same one, because keys travel over both connections.

The page listens on loopback by default. Conversations are kept in this process, each under a random id that its browser
tab stores, so that they survive a reload. They are deleted with their files when the process ends.
"""

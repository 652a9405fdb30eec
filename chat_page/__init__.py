# SPDX-License-Identifier: Apache-2.0
"""A chat page in the browser for an OpenAI endpoint.

`static/` is the page: plain HTML, CSS and JavaScript modules, with the libraries of `static/vendor/`. This package
serves these files and passes the page's requests on to the endpoint, so that the browser talks to one address only.
Nothing is loaded from other sites, and the security policy keeps the browser from fetching what an answer links to.

Chats and settings are kept in the browser. If the endpoint needs a key, each visitor enters their own; it is kept in
that browser too, and is sent with each request. OPENAI_API_KEY in the environment replaces the field and is then used
for everybody who can reach the page; the launcher never sets it. TLS: the launcher makes the page trust the server's
own certificate (`--api-certificate`) and serve with the same one, because keys travel over both connections.
"""

"""The page for browsers at GET /graphql: GraphiQL where its scripts can be loaded, a plain editor where not."""

from __future__ import annotations

from typing import Final

from app.api.asgi import answer

_PAGE: Final = """<!doctype html>
<html lang="en">
<head>
<meta charset="utf-8">
<title>Tollgate GraphQL</title>
<link rel="icon" href="data:,">
<link rel="stylesheet" crossorigin href="https://unpkg.com/graphiql@3.8.3/graphiql.min.css"
  integrity="sha384-Mq3vbRBY71jfjQAt/DcjxUIYY33ksal4cgdRt9U/hNPvHBCaT2JfJ/PTRiPKf0aM">
<style>
  html, body { height: 100%; margin: 0; font-family: system-ui, sans-serif; }
  body { display: flex; flex-direction: column; }
  header { display: flex; gap: 1em; align-items: center; padding: .5em 1em; border-bottom: 1px solid #ccc; }
  header input { flex: 1; max-width: 32em; }
  #graphiql { flex: 1; min-height: 0; }
  #plain { display: grid; grid-template: 1fr auto / 1fr 1fr; gap: .5em; padding: 1em; height: 90%; }
  #plain textarea, #plain pre { margin: 0; padding: .5em; font-family: monospace; overflow: auto; }
  #plain pre { border: 1px solid #ccc; }
</style>
</head>
<body>
<header>
  <label for="token">Token</label>
  <input id="token" type="password" autocomplete="off" placeholder="sent as Authorization: Bearer ...">
</header>
<div id="graphiql"></div>
<script crossorigin src="https://unpkg.com/react@18.2.0/umd/react.production.min.js"
  integrity="sha384-tMH8h3BGESGckSAVGZ82T9n90ztNXxvdwvdM6UoR56cYcf+0iGXBliJ29D+wZ/x8"></script>
<script crossorigin src="https://unpkg.com/react-dom@18.2.0/umd/react-dom.production.min.js"
  integrity="sha384-bm7MnzvK++ykSwVJ2tynSE5TRdN+xL418osEVF2DE/L/gfWHj91J2Sphe582B1Bh"></script>
<script crossorigin src="https://unpkg.com/graphiql@3.8.3/graphiql.min.js"
  integrity="sha384-HbRVEFG0JGJZeAHCJ9Xm2+tpknBQ7QZmNlO/DgZtkZ0aJSypT96YYGRNod99l9Ie"></script>
<script>
  const example = "{ llmProviders { name models { ref costInputPerMillion costOutputPerMillion } } }\\n";
  const token = document.getElementById("token");
  token.value = sessionStorage.getItem("tollgate-token") || "";
  token.addEventListener("change", () => { sessionStorage.setItem("tollgate-token", token.value); show(); });
  const headers = () => (token.value ? { authorization: "Bearer " + token.value } : {});
  const root = document.getElementById("graphiql");
  let mounted = null;
  function show() {
    if (!window.GraphiQL || !window.ReactDOM) { return plain(); }
    const fetcher = GraphiQL.createFetcher({
      url: location.pathname,
      headers: headers(),
      subscriptionUrl: location.origin.replace(/^http/, "ws") + location.pathname,
      wsConnectionParams: { Authorization: headers().authorization },
    });
    mounted = mounted || ReactDOM.createRoot(root);
    mounted.render(React.createElement(GraphiQL, { key: token.value, fetcher, defaultQuery: example }));
  }
  function plain() {
    if (mounted) { return; }
    mounted = true;
    root.innerHTML = '<div id="plain"><textarea id="query" spellcheck="false"></textarea><pre id="result"></pre>'
      + '<div><textarea id="variables" rows="3" placeholder="variables, as JSON"></textarea>'
      + ' <button>Run</button></div></div>';
    document.getElementById("query").value = example;
    root.querySelector("button").addEventListener("click", async () => {
      const variables = document.getElementById("variables").value.trim();
      const result = document.getElementById("result");
      try {
        const response = await fetch(location.pathname, {
          method: "POST",
          headers: { "content-type": "application/json", accept: "application/json", ...headers() },
          body: JSON.stringify({
            query: document.getElementById("query").value,
            variables: variables ? JSON.parse(variables) : null,
          }),
        });
        result.textContent = JSON.stringify(await response.json(), null, 2);
      } catch (error) { result.textContent = String(error); }
    });
  }
  show();
</script>
</body>
</html>
"""

GRAPHIQL: Final = answer(200, _PAGE.encode(), "text/html; charset=utf-8")
"""Holds no data, so it is served without a token."""

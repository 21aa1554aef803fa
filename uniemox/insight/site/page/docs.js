"use strict";
// Swagger UI, from the package fastapi-swagger; it asks this server only, under the prefix of this page's own address.

async function show() {
  const schema = await (await fetch("openapi.json")).json();
  window.SwaggerUIBundle({
    dom_id: "#operations",
    spec: { ...schema, servers: [{ url: new URL(".", document.baseURI).pathname }] },
    validatorUrl: null,
    tryItOutEnabled: true,
    displayRequestDuration: true,
    syntaxHighlight: false,
    defaultModelsExpandDepth: 0,
  });
}

show();

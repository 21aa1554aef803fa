"use strict";
// Swagger UI, from the package fastapi-swagger; it asks this server only.

window.SwaggerUIBundle({
  dom_id: "#operations",
  url: "/openapi.json",
  validatorUrl: null,
  tryItOutEnabled: true,
  displayRequestDuration: true,
  syntaxHighlight: false,
  defaultModelsExpandDepth: 0,
});

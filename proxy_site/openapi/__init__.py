"""The API's description in OpenAPI, made from the views; `make openapi` writes it to openapi.json.

Nothing that serves imports this: drf-spectacular is a tool of who develops a node. So what the
document says of a view stands here, not at the view.
"""

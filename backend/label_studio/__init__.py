"""All that speaks Label Studio's language: its payloads, its brush masks, its REST API."""

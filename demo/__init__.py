"""The whole loop on one machine, driven from outside: a real Label Studio, the product's own commands, and a
scripted annotator who works through Label Studio's API. Nothing here imports the backend."""

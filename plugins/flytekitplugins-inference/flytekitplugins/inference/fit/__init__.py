"""Does a model fit? Memory that a language model needs, from its own `config.json`.

Pure; standard library only. Everything is in bytes, and every formula names its source.

| module | from → to |
|---|---|
| `architecture` | a `config.json` → the numbers that decide about memory |
| `weights` | an architecture, or an index of files → bytes of weights |
| `kv_cache` | an architecture → bytes of cache for tokens |
| `accelerators` | an accelerator's name → its memory |
| `estimate` | all of it → what is needed, what there is, and how many tokens fit |
"""

"""What a pod is: description values → plan → manifest. Pure; standard library only.

| module | from → to |
|---|---|
| `quantity` | text or number → Kubernetes quantity |
| `whole_numbers` | numbers given as text → numbers |
| `names` | the rules for names, ports and paths, each with the sentence that states it |
| `parts` | the values that a plan is made of |
| `server` | what the room of one kind of server answers |
| `secrets` | a secret's prefix, group and key → environment variables |
| `check` | what a user gave → problems |
| `flags` | a dictionary of options → a server's command line |
| `arguments`, `adapters` | what servers with a command line, or with LoRA adapters, share |
| `named_models` | what servers of a repository of named models share |
| `bundle` | the programs' modules → one text that travels in a pod spec |
| `plan` | a server and what stands around it → containers in order, volumes |
| `compile` | plan → manifest (plain dictionaries, camelCase) |
| `merge` | the user's own manifest + ours, by name, add-only |
| `lint` | manifest → problems |
"""

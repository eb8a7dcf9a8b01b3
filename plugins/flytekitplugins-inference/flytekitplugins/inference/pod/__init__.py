"""What a pod is: description → plan → manifest. Pure; standard library only.

| module | from → to |
|---|---|
| `quantity` | text or number → Kubernetes quantity |
| `foreign_keywords` | a keyword that belongs elsewhere → where |
| `whole_numbers` | numbers given as text → numbers |
| `names` | the rules for names, ports and paths, each with the sentence that states it |
| `parts` | the values that a plan is made of |
| `secrets` | a secret's prefix, group and key → environment variables |
| `plain_secrets` | texts of a pod → the secrets that stand in them |
| `check` | what a user gave → problems |
| `model` | where a model comes from → its path, volumes, budget, arguments of the loader |
| `description` | what is told about one model server → problems, and what follows from the fields |
| `server` | what the room of one kind of server answers |
| `arguments` | for servers that are told everything by their command line: field and checks |
| `adapters` | for servers that take LoRA adapters: field and checks |
| `flags` | a dictionary of options → a server's command line |
| `named_models` | what servers of a repository of named models share |
| `bundle` | the programs' modules → one text that travels in a pod spec |
| `helpers` | the containers that run our own programs |
| `exporter` | settings of the metrics exporter → its container, and the probes that it answers |
| `assemble` | descriptions → the containers of each server → the plan of the pod |
| `plan` | servers and what stands around them → containers in order, volumes |
| `compile` | plan → manifest (plain dictionaries, camelCase) |
| `images` | the published images; a manifest → one whose images come from mirrors |
| `image_version` | an image's name → the server's release in it |
| `merge` | the user's own manifest + ours, by name, add-only |
| `api_rules` | manifest → what the API server refuses |
| `lint` | manifest → problems |
| `pod_resources` | manifest → what the scheduler reserves, and the quality of service |
| `pod_security` | manifest → the level of the Pod Security Standards |
"""

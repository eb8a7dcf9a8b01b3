"""The command line: look at a pod before it is submitted.

`python -m flytekitplugins.inference` and the console script `flyte-inference`. The room stands
above all others, and nothing imports it. It decides nothing about a pod: every answer comes from
the layers below, and this room finds the template and prints.

| module | purpose |
|---|---|
| `commands` | the commands, their options and exit codes |
| `target` | `MODULE:NAME` → a description and its pod |
| `yaml_page` | a pod → YAML with a comment for each container |
| `findings` | a pod → what a check says of it |
| `cluster` | a cluster → what it lacks for a pod |
| `model_files` | a directory → the architecture and the size of the model in it |
| `catalogue` | the images of all installed servers |
"""

"""Tasks that ship with dynalign, in the format of lm-evaluation-harness; they need no network.

Any harness runs them: `lm_eval --include_path <this folder> --tasks dynalign_choices,dynalign_instructions`, with
`--apply_chat_template` for the instructions.
"""

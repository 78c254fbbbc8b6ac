"""adapter_config.json of a LoRA adapter. Reference: peft 0.21, tuners/lora."""

from __future__ import annotations

from onnxembed.facts.known import KnownKeys, grouped, words

LORA = KnownKeys(
    read=words(
        """
        peft_type base_model_name_or_path r lora_alpha rank_pattern alpha_pattern use_rslora use_dora lora_bias
        init_lora_weights
        """
    ),
    harmless=grouped(
        {
            "names the class that was trained": "auto_mapping",
            "chooses a class, not what the layers compute": "task_type",
            "freezes weights": "inference_mode",
            "names who wrote the file": "peft_version",
            "of the base; the base at hand is taken": "revision",
            "the adapter's tensors name their layers": """
                target_modules exclude_modules layers_to_transform layers_pattern
            """,
            "the adapter's tensors hold these layers whole": "modules_to_save",
            "the adapter's tensors hold the trained biases": "bias",
            "peft turns it off for torch's Linear, which all layers here are": "fan_in_fan_out",
            "for training only": "lora_dropout",
            "names a module that is used only with megatron_config": "megatron_core",
            "used only with use_qalora": "qalora_group_size",
            "how the factors began": "eva_config",
            "used only with init_lora_weights of its name": "corda_config lora_ga_config loftq_config",
            "where the factors are computed": "runtime_config",
        }
    ),
    off=dict.fromkeys(
        words(
            """
            layer_replication trainable_token_indices target_parameters alora_invocation_tokens use_qalora use_bdlora
            arrow_config kasa_config velora_config monteclora_config megatron_config ensure_weight_tying
            """
        ),
        "which onnxembed does not merge: merge it first, where peft is, with PeftModel.from_pretrained(BASE, FOLDER)."
        "merge_and_unload()",
    ),
)

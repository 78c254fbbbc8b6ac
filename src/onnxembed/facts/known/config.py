"""config.json: the keys that are the same for every architecture. Those of one architecture its builder takes."""

from __future__ import annotations

from onnxembed.facts.known import grouped

HARMLESS = grouped(
    {
        "settings of training": """
            attention_dropout attention_probs_dropout_prob classifier_dropout classifier_dropout_prob dropout
            embedding_dropout gradient_checkpointing hidden_dropout hidden_dropout_prob initializer_range layerdrop
            neftune_noise_alpha qa_dropout seq_classif_dropout summary_last_dropout
        """,
        "settings of generation": """
            bad_words_ids begin_suppress_tokens cache_implementation decoder_start_token_id diversity_penalty do_sample
            early_stopping encoder_no_repeat_ngram_size exponential_decay_length_penalty forced_bos_token_id
            forced_eos_token_id length_penalty max_length min_length no_repeat_ngram_size num_beam_groups num_beams
            num_return_sequences repetition_penalty suppress_tokens temperature top_k top_p typical_p use_cache
        """,
        "ids of tokens that the tokenizer puts into a text": """
            bos_token_id cls_token_id eos_token_id eos_token_ids mask_token_id sep_token_id unk_token_id
        """,
        "of heads, whose labels and activation the decisions read": """
            finetuning_task id2label label2id n_classes num_labels _num_labels problem_type
            sbert_ce_default_activation_function sentence_transformers summary_activation summary_first_dropout
            summary_proj_to_labels summary_type summary_use_proj task_specific_params
        """,
        "what a call returns": """
            output_attentions output_hidden_states output_past output_scores remove_invalid_values return_dict
            return_dict_in_generate
        """,
        "how a machine computes the same": """
            _attn_implementation _attn_implementation_autoset _flash_attn_2_enabled attn_implementation
            chunk_size_feed_forward dtype tf_legacy_loss torch_dtype torchscript use_bfloat16 use_flash_attention_2
            use_flash_attn xla_device
        """,
        "which tensor is stored once, as the weights show": "tie_encoder_decoder tie_weights_ tie_word_embeddings",
        "names and versions of files and programs": """
            _commit_hash _name_or_path architectures auto_map language tokenizer_class transformers.js_config
            transformers_version unsloth_fixed unsloth_version
        """,
        "of poolers of the first BERT, which no class reads": """
            directionality pooler_fc_size pooler_num_attention_heads pooler_num_fc_layers pooler_size_per_head
            pooler_type
        """,
        "of cross-attention, which add_cross_attention turns on": "cross_attention_hidden_size",
        "how the table of positions began, which the weights hold": "sinusoidal_pos_embds",
        "the width of a table, which its shape says": "emb_size",
        "of the tokenizer, which has files of its own": "model_max_length",
        "how model2vec made its table of vectors": """
            apply_pca apply_zipf embedding_dtype seq_length sif_coefficient tokenizer_name vocabulary_quantization
        """,
    }
)
"""Keys that do not change the hidden states of an inference pass, each with the reason."""

NEUTRAL_VALUES: dict[str, object] = {
    "adapters": {"adapters": {}, "config_map": {}, "fusion_config_map": {}, "fusions": {}},  # the adapters library's
    "add_cross_attention": False,
    "is_decoder": False,
    "is_encoder_decoder": False,
    "prefix": None,
    "pruned_heads": {},
    "quantization_config": None,
    "use_mrope": False,
    # The first ALBERT's, which transformers' class has never read.
    "down_scale_factor": 1,
    "gap_size": 0,
    "net_structure_type": 0,
    "num_memory_blocks": 0,
    # TinyBERT's, of the code that distilled it.
    "cell": {},
    "pre_trained": "",
    "structure": [],
    "training": "",
}
"""Keys that any config.json may have, and that change nothing as long as they have this value."""

"""tokenizer_config.json. Other keys may be there: transformers keeps a key that no class names, and reads it nowhere.

Reference: transformers 5.24, AutoTokenizer.from_pretrained, PreTrainedTokenizerBase._from_pretrained, TokenizersBackend
and the classes of `tokenizer.vocabularies`.
"""

from __future__ import annotations

from onnxembed.facts.known import KnownKeys, grouped, words

TOKENIZER = KnownKeys(
    read=words(
        """
        tokenizer_class auto_map model_max_length max_len truncation_side model_input_names chat_template
        added_tokens_decoder additional_special_tokens extra_special_tokens model_specific_special_tokens
        bos_token eos_token unk_token sep_token pad_token cls_token mask_token
        add_bos_token add_eos_token add_prefix_space do_lower_case keep_accents legacy split_by_punct strip_accents
        tokenize_chinese_chars trim_offsets
        """
    ),
    harmless=grouped(
        {
            "names of files and places, which the folder's own names overrule": """
                _commit_hash cache_dir code_revision files_loaded local_files_only merges_file name_or_path proxies
                revision subfolder token tokenizer_file vocab_file
            """,
            "how a text is made of tokens": """
                clean_up_tokenization_spaces clean_up_tokenization_spaces_for_bpe_even_though_it_will_corrupt_output
                errors
            """,
            "of chats": """
                chat_control_tokens response_schema response_template use_default_system_prompt
            """,
            "of a call, which sets its own": """
                max_length pad_to_multiple_of pad_token_type_id padding_side stride truncation_strategy
            """,
            "chooses code or where it comes from, which is never run": """
                _from_auto _from_pipeline backend processor_class tokenizer_type trust_remote_code use_fast verbose
            """,
            "names the row of the unknown token, which the vocabulary says": "unk_id",
        }
    ),
    off=dict.fromkeys(
        words("vocab merges tokenizer_object tokenizer post_processor config init_inputs"),
        "which transformers would take in place of what the tokenizer's own file says: take it out of a copy",
    )
    | dict.fromkeys(
        words("_json_padding _json_truncation _spm_precompiled_charsmap gguf_file mistral_format"),
        "which is no key of a published tokenizer: take it out of a copy",
    )
    | {
        "split_special_tokens": "which tokenizer.json cannot hold",
        "fast_tokenizer_files": "of which transformers takes one by its own version, in place of tokenizer.json: keep "
        "the one that the model was trained with, and delete the key",
        "fix_mistral_regex": "with which transformers changes how tokenizer.json cuts texts: save the tokenizer with "
        "transformers, and export that",
        "tokenizer_truncation": "which overrules the truncation of tokenizer.json: take it out of a copy",
        "tokenizer_padding": "which overrules the padding of tokenizer.json: take it out of a copy",
    },
)

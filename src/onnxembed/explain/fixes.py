"""What to change in each other system, by cause. Words in braces are our own model's values."""

from __future__ import annotations

from collections.abc import Mapping

FIXES: Mapping[str, Mapping[str, str]] = {
    "normalization": {
        "sentence-transformers": "model.encode(texts, normalize_embeddings={normalize})",
        "text-embeddings-inference": 'the field "normalize" of /embed: {lowered}',
        "FastEmbed": "TextEmbedding.add_custom_model(..., normalization={normalize})",
        "FlagEmbedding": "FlagModel(..., normalize_embeddings={normalize})",
        "transformers": "{applied} torch.nn.functional.normalize(vectors, dim=-1)",
        "vLLM": "the field use_activation of a request or of --pooler-config (once normalize): {lowered}",
    },
    "pooling": {
        "sentence-transformers": "1_Pooling/config.json, or Pooling(dimension, '{pooling}') among the modules",
        "text-embeddings-inference": "--pooling cls, mean or last-token: {pooling}",
        "FastEmbed": "add_custom_model(..., pooling=...): PoolingType.CLS, MEAN or LAST_TOKEN for {pooling}",
        "FlagEmbedding": "FlagModel(..., pooling_method=...): cls or mean for {pooling}; FlagLLMModel for last_token",
        "transformers": "pool last_hidden_state by {pooling}, over the attention mask",
        "vLLM": "--pooler-config with pooling_type MEAN, CLS or LAST: {pooling}",
    },
    "special tokens in the pooling": {
        "transformers": "pool over attention_mask as the tokenizer gives it, special tokens included",
        "text-embeddings-inference": "this is not an option of the server: check what stands before it",
    },
    "layers after the pooling": {
        "sentence-transformers": "load the folder with its modules.json, not a bare Transformer with a Pooling",
        "transformers": "apply the layers of 2_Dense after the pooling: AutoModel does not read them",
        "FastEmbed": "it has no Dense layers: use a graph that contains them, such as ours",
        "text-embeddings-inference": "serve a folder with modules.json and 2_Dense, with the Candle backend",
    },
    "dimensions": {
        "sentence-transformers": "SentenceTransformer(..., truncate_dim=None)",
        "text-embeddings-inference": 'leave out the field "dimensions"',
        "vLLM": "leave out the field dimensions of the request",
    },
    "prompt": {
        "sentence-transformers": "model.encode(texts, prompt={prompt!r})",
        "text-embeddings-inference": "--default-prompt or the field prompt_name, so that the prompt is {prompt!r}",
        "FastEmbed": "it adds no prompts: put {prompt!r} before each text yourself",
        "FlagEmbedding": "FlagModel(..., query_instruction_for_retrieval={prompt!r}) and encode_queries",
        "transformers": "put {prompt!r} before each text",
        "vLLM": "it adds no prompts: put {prompt!r} before each text",
    },
    "special tokens": {
        "transformers": "tokenizer(texts, add_special_tokens=True), with the post_processor of tokenizer.json",
        "sentence-transformers": "use the tokenizer.json of the model, whose post_processor adds these tokens",
        "text-embeddings-inference": "use the tokenizer.json of the model, whose post_processor adds these tokens",
        "vLLM": "the field add_special_tokens: true, with the tokenizer.json of the model",
    },
    "prompt in the pooling": {
        "sentence-transformers": '"include_prompt": true in 1_Pooling/config.json',
        "transformers": "pool over the whole attention mask, the tokens of the prompt included",
    },
    "attention": {
        "sentence-transformers": "is_causal in config.json: {lowered} (model[0].model.config.is_causal)",
        "text-embeddings-inference": '"is_causal": {lowered} in config.json (Qwen2; others have a key of their own)',
        "vLLM": "--hf-overrides '{{\"is_causal\": {lowered}}}'",
        "transformers": "AutoModel.from_pretrained(..., is_causal={causal}) for the classes that read it",
    },
    "number format": {
        "sentence-transformers": 'SentenceTransformer(..., model_kwargs={{"dtype": "float32"}})',
        "text-embeddings-inference": "--dtype float32",
        "FastEmbed": "the fp32 graph: TextEmbedding.add_custom_model(..., model_file='onnx/model.onnx')",
        "FlagEmbedding": "FlagModel(..., use_fp16=False, use_bf16=False)",
        "vLLM": "--dtype float32",
        "transformers": "AutoModel.from_pretrained(..., dtype=torch.float32)",
    },
    "attention window": {
        "transformers": "config.json as published ({window}), and a release that has a class for this model_type",
        "sentence-transformers": "config.json as published ({window})",
        "text-embeddings-inference": "a release that reads this of config.json: {window}",
        "vLLM": "no --hf-overrides or --disable-sliding-window that say otherwise than config.json: {window}",
    },
    "activation": {
        "transformers": "{key} in config.json: {activation}",
        "text-embeddings-inference": "not an option: 1.9 computes GELU with tanh, whatever {key} says ({activation})",
    },
    "positions": {
        "transformers": "pass no position_ids, so that the model counts them from {first} itself",
        "all systems": "the first token's position must be {first}",
    },
    "rotary positions": {
        "transformers": "config.json as published: {rope}",
        "vLLM": "no --hf-overrides that say otherwise than config.json: {rope}",
        "text-embeddings-inference": "a release that reads these keys of config.json: {rope}",
    },
    "tokenizer": {
        "transformers": "AutoTokenizer.from_pretrained on the model's own tokenizer.json, without options",
        "all systems": "use the tokenizer.json of the model unchanged, not a tokenizer rebuilt from its vocabulary",
    },
    "truncation": {
        "sentence-transformers": "model.max_seq_length = {length}",
        "text-embeddings-inference": "max_seq_length in sentence_bert_config.json: {length}",
        "FastEmbed": "model_max_length in tokenizer_config.json: {length}",
        "FlagEmbedding": "query_max_length and passage_max_length: {length}",
        "transformers": "tokenizer(texts, truncation=True, max_length={length})",
        "vLLM": '"truncate_prompt_tokens": {length} and "truncation_side": "right", with a --max-model-len as large',
    },
    "truncation side": {
        "transformers": 'tokenizer.truncation_side = "{side}"',
        "sentence-transformers": 'model.tokenizer.truncation_side = "{side}"',
        "text-embeddings-inference": 'the field "truncation_direction": "{capital}"',
        "vLLM": 'the field "truncation_side": "{side}"',
    },
    "case": {
        "transformers": "use the tokenizer files of the model unchanged (do_lower_case in tokenizer_config.json)",
        "sentence-transformers": "do_lower_case in sentence_bert_config.json, as the model has it",
        "vLLM": "do_lower_case of sentence_bert_config.json, as the model has it",
    },
    "token types": {
        "transformers": "pass the token_type_ids of the tokenizer, or none",
        "all systems": "feed the token types as the tokenizer gives them",
    },
    "padding": {
        "transformers": "pass attention_mask to the model and to the pooling; set tokenizer.padding_side to right",
        "sentence-transformers": "leave the attention mask as tokenize() gives it; set tokenizer.padding_side to right",
        "text-embeddings-inference": "send one text at a time to confirm it, then update the server",
    },
    "activation of scores": {
        "sentence-transformers": "CrossEncoder(..., activation_fn=torch.nn.Identity()) for raw scores, or Sigmoid()",
        "text-embeddings-inference": 'the field "raw_scores" of /rerank: {raw}',
        "FlagEmbedding": "FlagReranker(...).compute_score(pairs, normalize=...), which applies the sigmoid if True",
        "transformers": "apply torch.sigmoid to the logits, or leave it out",
        "FastEmbed": "TextCrossEncoder gives raw logits: apply the sigmoid yourself",
    },
    "pair order": {"all systems": "put the query first and the document second"},
    "separator": {
        "transformers": "tokenizer(queries, documents): two arguments, not one text",
        "all systems": "give query and document apart, so that the tokenizer puts its separator between them",
    },
    "head": {
        "transformers": "AutoModelForSequenceClassification, whose head reads what config.json says",
        "text-embeddings-inference": "classifier_pooling of config.json, which releases from 1.7 on read",
        "all systems": "classifier_pooling of config.json says what the head reads",
    },
    "order": {"all systems": "match results with texts by their index or id, not by the order in which they come back"},
    "scale": {"all systems": "divide the vectors by the factor, or scale both sides to length 1"},
}
"""By cause, then by system."""

"""The class that transformers reads a checkpoint's tokenizer.json with.

Most classes take from tokenizer.json only the vocabulary and what goes around a text, and prepare and cut texts in
their own way; TokenizersBackend (PreTrainedTokenizerFast) follows the whole file. The tables are those of
transformers 5.24, `models/auto/tokenization_auto.py`; a test compares them with the installed release.
"""

from __future__ import annotations

import json
from collections.abc import Mapping
from typing import Any

from onnxembed.facts.facts import Facts
from onnxembed.facts.model_types import MODEL_TYPES

AS_STORED = "TokenizersBackend"

# The class of each model_type, TOKENIZER_MAPPING_NAMES; for those that are left out, the files alone decide.
REGISTERED = {
    "albert": "AlbertTokenizer",
    "bert": "BertTokenizer",
    "camembert": "CamembertTokenizer",
    "deberta-v2": "DebertaV2Tokenizer",
    "distilbert": "BertTokenizer",
    "electra": "BertTokenizer",
    "gemma3_text": "GemmaTokenizer",
    "gte": "XLMRobertaTokenizer",
    "jina_embeddings_v3": "XLMRobertaTokenizer",
    "mistral": AS_STORED,
    "modernbert": AS_STORED,
    "mpnet": "MPNetTokenizer",
    "nomic_bert": "BertTokenizer",
    "qwen2": "Qwen2Tokenizer",
    "qwen3": "Qwen2Tokenizer",
    "roberta": "RobertaTokenizer",
    "xlm-roberta": "XLMRobertaTokenizer",
}

# The model_types whose class overrules the one that the files name, MODELS_WITH_INCORRECT_HUB_TOKENIZER_CLASS.
OVERRULING = frozenset({"modernbert", "qwen2"})

# Names of other classes' code.
ALIASES = {
    "BartTokenizer": "RobertaTokenizer",
    "ElectraTokenizer": "BertTokenizer",
    "LEDTokenizer": "RobertaTokenizer",
    "LayoutLMTokenizer": "BertTokenizer",
    "LongformerTokenizer": "RobertaTokenizer",
    "LxmertTokenizer": "BertTokenizer",
    "MobileBertTokenizer": "BertTokenizer",
    "MvpTokenizer": "RobertaTokenizer",
    "SqueezeBertTokenizer": "BertTokenizer",
}

# The classes with an `__init__` of their own, without the suffix "Tokenizer". Any other name means AS_STORED.
_REBUILDING = """
Albert Barthez Bartpho BertGeneration BertJapanese Bert Bertweet BigBird BioGpt BlenderbotSmall Blenderbot ByT5 CLIP
CTRL Camembert Canine Clvp CodeGen CodeLlama Cohere CpmAnt Cpm DPRContextEncoder DPRQuestionEncoder DPRReader Deberta
DebertaV2 Dia DistilBert Esm Esmc FSMT FastSpeech2Conformer Flaubert Funnel GPT2 GPTNeoXJapanese GPTNeoX GPTSw3 Gemma
Herbert Lasr LayoutLMv2 LayoutLMv3 LayoutXLM Llama Luke M2M100 MBart50 MBart MLuke MPNet Marian MarkupLM Mgpstr MyT5
Nllb Nougat OpenAIGPT PLBart Pegasus Perceiver Phobert Pop2Piano ProphetNet Qwen2 Qwen3_5 Rag Reformer RemBert RoCBert
RoFormer Roberta SeamlessM4T Siglip2 Siglip Speech2Text SpeechT5 Splinter T5 Tapas Tipsv2 Udop VideoPrism Vits
Wav2Vec2CTC Wav2Vec2PhonemeCTC Whisper XGLM XLMRoberta XLM XLNet
"""
REBUILDING = frozenset(f"{name}Tokenizer" for name in _REBUILDING.split())


def rebuilding_class(facts: Facts, state: Mapping[str, Any]) -> str | None:
    """The class that prepares and cuts texts in its own way; None where the tokenizer.json in `state` is followed.

    Reference: transformers 5.24, AutoTokenizer.from_pretrained, without the tokenizer's own code.
    """
    if MODEL_TYPES[facts.model_type].static:  # whose references read tokenizer.json alone
        return None
    named = facts.tokenizer_config.get("tokenizer_class") or facts.config.get("tokenizer_class")
    named = str(named).removesuffix("Fast") if named else None
    registered = REGISTERED.get(facts.model_type)
    overrules = facts.model_type in OVERRULING
    if _has_code(facts):
        name = named or registered
    elif named == "LlamaTokenizer" and not overrules and "ByteLevel" in _types(state):
        name = None
    elif named and registered and named != registered:
        name = registered if overrules or registered == AS_STORED else named
    else:
        name = named or registered
    name = ALIASES.get(name or "", name)
    return name if name in REBUILDING else None


def _has_code(facts: Facts) -> bool:
    auto_map = facts.tokenizer_config.get("auto_map")
    return bool(auto_map.get("AutoTokenizer") if isinstance(auto_map, dict) else auto_map)


def _types(state: Mapping[str, Any]) -> str:
    return json.dumps({part: state.get(part) for part in ("pre_tokenizer", "decoder", "post_processor", "normalizer")})

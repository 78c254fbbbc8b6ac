"""What each tokenizer class of transformers 5 makes of a vocabulary: of its older files, or of a tokenizer.json.

Each class does what transformers 5's class of that name does, because that is what vectors are compared with. Where
older releases differ, transformers 5 is followed as well:

- LlamaTokenizer: a text that begins with a space gets no second one (sentencepiece: two).
- AlbertTokenizer: pieces like `9,` keep their score (transformers 4 made them unlikely).
- DebertaV2Tokenizer: NFC, not the file's normalization table. The manifest says so.

The exception: for model_type mistral, AutoTokenizer below transformers 5.24 ignores the named class and does not add
the space before a text that the file asks for. Here it is read as LlamaTokenizer, which gives the ids of the
sentencepiece library, as later releases do.

The files that these classes read are fetched by name: `hub.checkpoint_files` lists them.
"""

from __future__ import annotations

from onnxembed.tokenizer.vocabularies import post_processors
from onnxembed.tokenizer.vocabularies.byte_fallback import build_gemma, build_llama, read_gemma, read_llama
from onnxembed.tokenizer.vocabularies.byte_level import build_gpt2, build_qwen2, read_byte_level
from onnxembed.tokenizer.vocabularies.tokenizer_class import TokenizerClass
from onnxembed.tokenizer.vocabularies.unigram import (
    build_albert,
    build_camembert,
    build_deberta_v2,
    build_xlm_roberta,
    read_albert,
    read_camembert,
    read_deberta_v2,
    read_xlm_roberta,
)
from onnxembed.tokenizer.vocabularies.wordpiece import build_wordpiece, read_wordpiece

BERT_CLASS = TokenizerClass("WordPiece", ("vocab.txt",), read_wordpiece, build_wordpiece, post_processors.cls_and_sep)
SPM = ("sentencepiece.bpe.model",)
BPE = ("vocab.json", "merges.txt")

CLASSES: dict[str, TokenizerClass] = {
    "AlbertTokenizer": TokenizerClass(
        "Unigram", ("spiece.model",), read_albert, build_albert, post_processors.cls_and_sep
    ),
    "BertTokenizer": BERT_CLASS,
    "CamembertTokenizer": TokenizerClass("Unigram", SPM, read_camembert, build_camembert, post_processors.bos_and_eos),
    "DebertaV2Tokenizer": TokenizerClass(
        "Unigram", ("spm.model",), read_deberta_v2, build_deberta_v2, post_processors.cls_and_sep
    ),
    "DistilBertTokenizer": BERT_CLASS,
    "ElectraTokenizer": BERT_CLASS,
    "GPT2Tokenizer": TokenizerClass("BPE", BPE, read_byte_level, build_gpt2, post_processors.flagged_bos_eos),
    "GemmaTokenizer": TokenizerClass(
        "BPE", ("tokenizer.model",), read_gemma, build_gemma, post_processors.required_bos_eos
    ),
    "LlamaTokenizer": TokenizerClass(
        "BPE", ("tokenizer.model",), read_llama, build_llama, post_processors.required_bos_eos
    ),
    "MPNetTokenizer": TokenizerClass(
        "WordPiece", ("vocab.txt",), read_wordpiece, build_wordpiece, post_processors.roberta
    ),
    "Qwen2Tokenizer": TokenizerClass("BPE", BPE, read_byte_level, build_qwen2, post_processors.flagged_bos_eos),
    "RobertaTokenizer": TokenizerClass("BPE", BPE, read_byte_level, build_gpt2, post_processors.roberta),
    "XLMRobertaTokenizer": TokenizerClass(
        "Unigram", SPM, read_xlm_roberta, build_xlm_roberta, post_processors.bos_and_eos
    ),
}

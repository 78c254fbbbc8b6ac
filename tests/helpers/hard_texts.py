"""Texts that tokenizers disagree about, each for a different reason."""

# ruff: noqa: RUF001  (letters that look alike are what these texts are about)

from __future__ import annotations

import unicodedata

WORD = "Ṩǻṽê ﬁancée ½ Ⅻ ﾊﾝｶｸ Å ① x² ﷺ"

HARD = (
    "",
    " ",
    "     ",
    "\t\r\n\n\n \n",
    "a",
    " a",
    "  two  spaces   and three ",
    "line\nline\r\nline\n\n\nline\t\ttab",
    "zero\u200bwidth\u200d joiner\u2060 soft\u00adhyphen \ufeffbom",
    "controls \x00\x01\x07\x1b[0m\x7f\x80\x9f end",
    "spaces\u00a0of\u2003many\u3000kinds\u2028line\u2029paragraph\u0085next",
    "emoji 🙂 🙂🏽 👩\u200d👩\u200d👧\u200d👦 🏳\ufe0f\u200d🌈 🇩🇪 ❤\ufe0f 1\ufe0f\u20e3",
    "astral 𝔘𝔫𝔦𝔠𝔬𝔡𝔢 𠮷野家 𐍈 𞤀 󠁧",
    "noncharacters \ufffe \uffff \U0010ffff private \ue000 replacement \ufffd",
    "combining e\u0301 a\u0300\u0323\u0316 Z\u0351\u036b\u0343\u036a ก็ कि",
    "mixed МоскваTokyo東京서울القاهرةΑθήνα123абв",
    "Istanbul İSTANBUL ıstanbul DŽ Dž ǅ ß ẞ ΣΑΣ ﬀ",
    *(unicodedata.normalize(form, WORD) for form in ("NFC", "NFD", "NFKC", "NFKD")),
    "中文，标点。「引用」……——日本語テキスト 한국어 텍스트",
    "อักษรไทยไม่มีวรรค",
    "it's I'm WE'RE they'll 'Tis don’t ``quoted'' \"so\"",
    "1234567890 3.14159 1,000,000 9, 10, 0x1F ½ ٣٤٥ 二〇二四",
    "a@b.example https://example.org/?q=1&r=%20#x C:\\path\\to ~/.rc #tag $100 50% x==y!=z",
    "▁lower ▁▁ one eighth block ▁",
    "##piece [unused1] <0x41> Ġword Ċ Â",
    "<s> </s> <pad> <unk> <mask> text<mask>text <s>NOTUSED",
    "[CLS] [SEP] [PAD] [UNK] [MASK] a[MASK]b [cls] [ MASK ]",
    "<|endoftext|> <|im_start|>user<|im_end|> x<|endoftext|>y <bos> <eos> <unused0>",
    "!?.,;:-_()[]{}<>/|\\'\"`~^*+=&%$#@ …–—‘’“”«»¿¡",
    "word " * 40,
    "a" * 300,
    "x" * 99 + "é" + "y" * 101,
    "antidisestablishmentarianism" * 5,
    "\n" * 20 + "after" + " " * 20 + "before",
)

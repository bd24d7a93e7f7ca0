"""Makes tests/fixtures/bert: a tiny BERT with random weights in the layout of
sentence-transformers, and expected.json with the vectors that sentence-transformers
makes of some texts, pooled in several ways.

Needs torch, transformers, tokenizers and sentence-transformers.

    python tests/python/bert_fixture.py
"""

import json
import pathlib
import tempfile
import shutil

import torch
from sentence_transformers import SentenceTransformer
from tokenizers import Tokenizer, models, normalizers, pre_tokenizers, processors
from transformers import BertConfig, BertModel

OUT = pathlib.Path(__file__).parent.parent / "fixtures" / "bert"
WORDS = "the river flows past oslo and rome un ##usual ##ly warm day cat cats ##s 1 8 ##7 ##4 . , ? e ##e".split()
TEXTS = [
    "the river flows past oslo",
    "The River, flows past ROME?",
    "cat",
    "",
    "unusually warm day. unusual days",
    "1874",
    "zebra the 東 cat",
    "the cat and the cat and the cat and the cat and the cat and rome",
    "élé",
    "  the\n\nriver\t",
    "[CLS] the [MASK] cat [SEP]",
]
MODES = [["mean"], ["cls"], ["max"], ["mean_sqrt_len_tokens"], ["cls", "mean"]]


def write(name, value):
    path = OUT / name
    path.parent.mkdir(exist_ok=True)
    path.write_text(json.dumps(value, indent=1, ensure_ascii=False) + "\n")


def tokenizer():
    special = ["[PAD]", "[UNK]", "[CLS]", "[SEP]", "[MASK]"]
    vocab = {word: i for i, word in enumerate(special + WORDS)}
    made = Tokenizer(models.WordPiece(vocab, unk_token="[UNK]"))
    made.add_special_tokens(special)
    made.normalizer = normalizers.BertNormalizer(lowercase=True)
    made.pre_tokenizer = pre_tokenizers.BertPreTokenizer()
    ids = [("[CLS]", 2), ("[SEP]", 3)]
    made.post_processor = processors.TemplateProcessing("[CLS] $A [SEP]", "[CLS] $A [SEP] $B:1 [SEP]:1", ids)
    # As all-MiniLM-L6-v2's file has it; neither may act.
    made.enable_truncation(8)
    made.enable_padding(length=8)
    return made, len(vocab)


def main():
    torch.manual_seed(5)
    shutil.rmtree(OUT, ignore_errors=True)
    OUT.mkdir()
    made, size = tokenizer()
    config = BertConfig(
        vocab_size=size, hidden_size=24, num_hidden_layers=2, num_attention_heads=3, intermediate_size=40,
        max_position_embeddings=20, initializer_range=0.4, layer_norm_eps=1e-12,
    )
    model = BertModel(config, add_pooling_layer=False).eval()
    for name, weight in model.named_parameters():
        if "LayerNorm" in name or name.endswith("bias"):
            torch.nn.init.normal_(weight, mean=float("LayerNorm.weight" in name), std=0.3)
    model.save_pretrained(OUT)
    made.save(str(OUT / "tokenizer.json"))
    names = {"unk_token": "[UNK]", "sep_token": "[SEP]", "pad_token": "[PAD]", "cls_token": "[CLS]", "mask_token": "[MASK]"}
    write("tokenizer_config.json", {"tokenizer_class": "BertTokenizer", "do_lower_case": True, "model_max_length": 18, **names})
    modules = [("", "Transformer"), ("1_Pooling", "Pooling"), ("2_Normalize", "Normalize")]
    write("modules.json", [
        {"idx": i, "name": str(i), "path": path, "type": f"sentence_transformers.models.{kind}"}
        for i, (path, kind) in enumerate(modules)
    ])
    write("sentence_bert_config.json", {"max_seq_length": 16, "do_lower_case": False})
    expected = []
    for modes in MODES:
        write("1_Pooling/config.json", {"embedding_dimension": 24, "pooling_mode": modes if len(modes) > 1 else modes[0]})
        with tempfile.TemporaryDirectory() as copy:
            shutil.copytree(OUT, copy, dirs_exist_ok=True)
            vectors = SentenceTransformer(copy, device="cpu").encode(TEXTS, batch_size=4)
        expected.append({"modes": modes, "vectors": [[round(float(x), 6) for x in v] for v in vectors]})
    switches = {"cls_token": False, "mean_tokens": True, "max_tokens": False, "mean_sqrt_len_tokens": False}
    write("1_Pooling/config.json", {
        "word_embedding_dimension": 24, **{f"pooling_mode_{name}": on for name, on in switches.items()},
    })
    (OUT / "expected.json").write_text(json.dumps({"texts": TEXTS, "cases": expected}, ensure_ascii=False) + "\n")


main()

"""Encoder-decoder attention and an encoder with masks: a translation that shifts letters, and classification with padding."""

import math

import torch
import torch.nn as nn
from torch import Tensor
from torch.nn import TransformerEncoder, TransformerEncoderLayer

torch.manual_seed(0)
PAD, BOS, EOS, VOCABULARY = 0, 1, 2, 12


class PositionalEncoding(nn.Module):
    def __init__(self, d_model: int, dropout: float = 0.0, max_len: int = 50):
        super().__init__()
        self.dropout = nn.Dropout(p=dropout)
        position = torch.arange(max_len).unsqueeze(1)
        div_term = torch.exp(torch.arange(0, d_model, 2) * (-math.log(10000.0) / d_model))
        pe = torch.zeros(max_len, 1, d_model)
        pe[:, 0, 0::2] = torch.sin(position * div_term)
        pe[:, 0, 1::2] = torch.cos(position * div_term)
        self.register_buffer("pe", pe)

    def forward(self, x: Tensor) -> Tensor:
        return self.dropout(x + self.pe[: x.size(0)])


class Seq2SeqTransformer(nn.Module):
    def __init__(self, d_model=32):
        super().__init__()
        self.transformer = nn.Transformer(
            d_model, nhead=4, num_encoder_layers=1, num_decoder_layers=1, dim_feedforward=64, dropout=0.0
        )
        self.generator = nn.Linear(d_model, VOCABULARY)
        self.embedding = nn.Embedding(VOCABULARY, d_model)
        self.positional = PositionalEncoding(d_model)
        for p in self.parameters():
            if p.dim() > 1:
                nn.init.xavier_uniform_(p)

    def embed(self, tokens):
        return self.positional(self.embedding(tokens.long()) * math.sqrt(32))

    def forward(self, src, tgt, src_mask, tgt_mask, src_pad, tgt_pad, memory_pad):
        return self.generator(self.transformer(self.embed(src), self.embed(tgt), src_mask, tgt_mask, None, src_pad, tgt_pad, memory_pad))

    def encode(self, src, src_mask):
        return self.transformer.encoder(self.embed(src), src_mask)

    def decode(self, tgt, memory, tgt_mask):
        return self.transformer.decoder(self.embed(tgt), memory, tgt_mask)


def generate_square_subsequent_mask(sz):
    mask = (torch.triu(torch.ones((sz, sz))) == 1).transpose(0, 1)
    return mask.float().masked_fill(mask == 0, float("-inf")).masked_fill(mask == 1, 0.0)


def make_batch(n):
    length = torch.randint(3, 7, (n,))
    body = torch.randint(3, VOCABULARY, (6, n))
    keep = torch.arange(6).unsqueeze(1) < length
    src = torch.where(keep, body, torch.full_like(body, PAD))
    shifted = torch.where(keep, (body - 3 + 1) % (VOCABULARY - 3) + 3, PAD)
    tgt = torch.cat([torch.full((1, n), BOS), shifted, torch.zeros(1, n, dtype=torch.long)])
    tgt[length + 1, torch.arange(n)] = EOS
    return src, tgt


model = Seq2SeqTransformer()
loss_fn = nn.CrossEntropyLoss(ignore_index=PAD)
optimizer = torch.optim.Adam(model.parameters(), lr=2e-3, betas=(0.9, 0.98), eps=1e-9)
first = None
for _ in range(100):
    src, tgt = make_batch(32)
    tgt_input, tgt_out = tgt[:-1, :], tgt[1:, :]
    tgt_mask = generate_square_subsequent_mask(tgt_input.shape[0]).isinf()
    src_mask = torch.zeros((src.shape[0], src.shape[0])).type(torch.bool)
    src_pad, tgt_pad = (src == PAD).transpose(0, 1), (tgt_input == PAD).transpose(0, 1)
    logits = model(src, tgt_input, src_mask, tgt_mask, src_pad, tgt_pad, src_pad)
    optimizer.zero_grad()
    loss = loss_fn(logits.reshape(-1, logits.shape[-1]), tgt_out.reshape(-1))
    loss.backward()
    optimizer.step()
    first = loss.item() if first is None else first
model.eval()
src = torch.tensor([[3, 5, 7, 9, 11, 4]]).t()
memory = model.encode(src, torch.zeros(6, 6, dtype=torch.bool))
ys = torch.ones(1, 1).fill_(BOS).type(torch.long)
for _ in range(6):
    out = model.decode(ys, memory, nn.Transformer.generate_square_subsequent_mask(ys.size(0)))
    prob = model.generator(out.transpose(0, 1)[:, -1])
    _, next_word = torch.max(prob, dim=1)
    ys = torch.cat([ys, torch.ones(1, 1).type_as(src.data).fill_(next_word.item())], dim=0)
right = (ys[1:, 0] == torch.tensor([4, 6, 8, 10, 3, 5])).float().mean().item()


class Classifier(nn.Module):
    """Whether a sequence has more of one letter than of another."""

    def __init__(self):
        super().__init__()
        self.emb = nn.Embedding(VOCABULARY, 32, padding_idx=PAD)
        layer = TransformerEncoderLayer(32, 2, 64, dropout=0.0, activation="gelu", batch_first=True, norm_first=True)
        self.encoder = TransformerEncoder(layer, num_layers=1, norm=nn.LayerNorm(32), enable_nested_tensor=False)
        self.head = nn.Linear(32, 1)

    def forward(self, tokens):
        pad = tokens.eq(PAD)
        h = self.encoder(self.emb(tokens), src_key_padding_mask=pad)
        h = h.masked_fill(pad.unsqueeze(-1), 0).sum(1) / (~pad).sum(1, keepdim=True)
        return self.head(h).squeeze(-1)


classifier, bce = Classifier(), nn.BCEWithLogitsLoss()
optimizer = torch.optim.AdamW(classifier.parameters(), lr=3e-3)
for _ in range(60):
    tokens = make_batch(64)[0].t()
    labels = ((tokens >= 7).sum(1) > (tokens < 7).logical_and(tokens != PAD).sum(1)).float()
    loss2 = bce(classifier(tokens), labels)
    optimizer.zero_grad()
    loss2.backward()
    optimizer.step()
print(f"first {first:.4f} loss {loss.item():.4f} right {right:.3f} classifier {loss2.item():.4f}")

"""Sequence to sequence with attention: packed sequences, teacher forcing, greedy decoding; digits are reversed."""

import random

import torch
import torch.nn as nn
import torch.nn.functional as F
from torch import optim
from torch.nn.utils.rnn import pack_padded_sequence, pad_packed_sequence, pad_sequence

random.seed(0)
torch.manual_seed(0)
PAD, SOS, EOS = 0, 1, 2


def make(n):
    return [torch.tensor([random.randint(3, 8) for _ in range(random.randint(2, 5))]) for _ in range(n)]


def collate(sources):
    sources = sorted(sources, key=len, reverse=True)
    targets = [torch.cat([s.flip(0), torch.tensor([EOS])]) for s in sources]
    lengths = torch.tensor([len(s) for s in sources])
    return pad_sequence(sources, padding_value=PAD), lengths, pad_sequence(targets, batch_first=True, padding_value=PAD)


class EncoderRNN(nn.Module):
    def __init__(self, vocabulary, hidden):
        super().__init__()
        self.embedding = nn.Embedding(vocabulary, hidden, padding_idx=PAD)
        self.gru = nn.GRU(hidden, hidden, bidirectional=True)
        self.hidden = hidden

    def forward(self, source, lengths):
        packed = pack_padded_sequence(self.embedding(source), lengths.cpu())
        outputs, hidden = self.gru(packed)
        outputs, _ = pad_packed_sequence(outputs)
        outputs = outputs[:, :, : self.hidden] + outputs[:, :, self.hidden :]
        return outputs.transpose(0, 1), hidden.sum(0, keepdim=True)


class BahdanauAttention(nn.Module):
    def __init__(self, hidden):
        super().__init__()
        self.Wa, self.Ua, self.Va = nn.Linear(hidden, hidden), nn.Linear(hidden, hidden), nn.Linear(hidden, 1)

    def forward(self, query, keys, mask):
        scores = self.Va(torch.tanh(self.Wa(query) + self.Ua(keys))).squeeze(2).unsqueeze(1)
        scores = scores.masked_fill(~mask.unsqueeze(1), torch.finfo(scores.dtype).min)
        weights = F.softmax(scores, dim=-1)
        return torch.bmm(weights, keys), weights


class AttnDecoderRNN(nn.Module):
    def __init__(self, hidden, vocabulary):
        super().__init__()
        self.embedding = nn.Embedding(vocabulary, hidden)
        self.attention = BahdanauAttention(hidden)
        self.gru = nn.GRU(2 * hidden, hidden, batch_first=True)
        self.out = nn.Linear(hidden, vocabulary)

    def forward(self, keys, hidden, mask, steps, target=None):
        input = torch.empty(keys.size(0), 1, dtype=torch.long, device=keys.device).fill_(SOS)
        outputs = []
        for i in range(steps):
            context, _ = self.attention(hidden.permute(1, 0, 2), keys, mask)
            output, hidden = self.gru(torch.cat((self.embedding(input), context), dim=2), hidden)
            logits = self.out(output)
            outputs.append(logits)
            if target is not None:
                input = target[:, i].unsqueeze(1)
            else:
                _, topi = logits.topk(1)
                input = topi.squeeze(-1).detach()
        return F.log_softmax(torch.cat(outputs, dim=1), dim=-1)


encoder, decoder = EncoderRNN(9, 32), AttnDecoderRNN(32, 9)
encoder_optimizer = optim.Adam(encoder.parameters(), lr=0.005)
decoder_optimizer = optim.Adam(decoder.parameters(), lr=0.005)
criterion = nn.NLLLoss(ignore_index=PAD)
first = None
for _ in range(120):
    source, lengths, target = collate(make(32))
    encoder_optimizer.zero_grad()
    decoder_optimizer.zero_grad()
    keys, hidden = encoder(source, lengths)
    mask = torch.arange(keys.size(1))[None, :] < lengths[:, None]
    teacher = target if random.random() < 0.8 else None
    output = decoder(keys, hidden, mask, target.size(1), teacher)
    loss = criterion(output.view(-1, output.size(-1)), target.view(-1))
    loss.backward()
    encoder_optimizer.step()
    decoder_optimizer.step()
    first = loss.item() if first is None else first

encoder.eval()
decoder.eval()
with torch.no_grad():
    source, lengths, target = collate(make(200))
    keys, hidden = encoder(source, lengths)
    mask = torch.arange(keys.size(1))[None, :] < lengths[:, None]
    output = decoder(keys, hidden, mask, target.size(1))
    loss = criterion(output.flatten(0, 1), target.flatten()).item()
    right = output.argmax(-1).eq(target)[target != PAD].float().mean().item()
print(f"first {first:.4f} loss {loss:.4f} accuracy {right:.4f}")

"""A word-level language model: embedding, two layers of LSTM, truncated backpropagation through time."""

import math

import torch
import torch.nn as nn
import torch.nn.functional as F

torch.manual_seed(1111)


class Dictionary:
    def __init__(self):
        self.word2idx, self.idx2word = {}, []

    def add_word(self, word):
        if word not in self.word2idx:
            self.idx2word.append(word)
            self.word2idx[word] = len(self.idx2word) - 1
        return self.word2idx[word]


class RNNModel(nn.Module):
    def __init__(self, rnn_type, ntoken, ninp, nhid, nlayers, dropout=0.1, tie_weights=True):
        super().__init__()
        self.ntoken = ntoken
        self.drop = nn.Dropout(dropout)
        self.encoder = nn.Embedding(ntoken, ninp)
        self.rnn = getattr(nn, rnn_type)(ninp, nhid, nlayers, dropout=dropout)
        self.decoder = nn.Linear(nhid, ntoken)
        if tie_weights:
            self.decoder.weight = self.encoder.weight
        nn.init.uniform_(self.encoder.weight, -0.1, 0.1)
        nn.init.zeros_(self.decoder.bias)
        self.rnn_type, self.nhid, self.nlayers = rnn_type, nhid, nlayers

    def forward(self, input, hidden):
        emb = self.drop(self.encoder(input))
        output, hidden = self.rnn(emb, hidden)
        decoded = self.decoder(self.drop(output)).view(-1, self.ntoken)
        return F.log_softmax(decoded, dim=1), hidden

    def init_hidden(self, bsz):
        weight = next(self.parameters())
        if self.rnn_type == "LSTM":
            return (weight.new_zeros(self.nlayers, bsz, self.nhid), weight.new_zeros(self.nlayers, bsz, self.nhid))
        return weight.new_zeros(self.nlayers, bsz, self.nhid)


def repackage_hidden(h):
    if isinstance(h, torch.Tensor):
        return h.detach()
    return tuple(repackage_hidden(v) for v in h)


sentences = ["one two three four five <eos>", "a b c d e f g <eos>", "red green blue <eos>", "x y z <eos>"]
dictionary = Dictionary()
ids = []
order = torch.randint(0, len(sentences), (700,), generator=torch.Generator().manual_seed(3))
for i in order:
    ids.append(torch.tensor([dictionary.add_word(w) for w in sentences[i].split()]).type(torch.int64))
corpus = torch.cat(ids)


def batchify(data, bsz):
    nbatch = data.size(0) // bsz
    return data.narrow(0, 0, nbatch * bsz).view(bsz, -1).t().contiguous()


def get_batch(source, i, bptt=20):
    seq_len = min(bptt, len(source) - 1 - i)
    return source[i : i + seq_len], source[i + 1 : i + 1 + seq_len].view(-1)


def train_epoch(model, data, optimizer, criterion):
    model.train()
    hidden = model.init_hidden(data.size(1))
    total, count = 0.0, 0
    for i in range(0, data.size(0) - 1, 20):
        x, y = get_batch(data, i)
        model.zero_grad()
        hidden = repackage_hidden(hidden)
        output, hidden = model(x, hidden)
        loss = criterion(output, y)
        loss.backward()
        torch.nn.utils.clip_grad_norm_(model.parameters(), 0.5)
        optimizer.step()
        total += loss.item() * len(y)
        count += len(y)
    return total / count


data = batchify(corpus, 10)
criterion = nn.NLLLoss()
results = {}
for kind in ("LSTM", "GRU", "RNN_TANH"):
    name = kind.split("_")[0]
    model = RNNModel(name, len(dictionary.idx2word), 32, 32, 2)
    optimizer = torch.optim.SGD(model.parameters(), lr=2.0 if name != "RNN" else 0.5, momentum=0.9)
    scheduler = torch.optim.lr_scheduler.ReduceLROnPlateau(optimizer, factor=0.25, patience=1)
    for _ in range(8):
        loss = train_epoch(model, data, optimizer, criterion)
        scheduler.step(loss)
    model.eval()
    with torch.no_grad():
        hidden = model.init_hidden(1)
        input = torch.tensor([[dictionary.word2idx["one"]]])
        words = ["one"]
        for _ in range(4):
            output, hidden = model(input, hidden)
            word_weights = output.squeeze().div(0.2).exp().cpu()
            input.fill_(torch.multinomial(word_weights, 1)[0])
            words.append(dictionary.idx2word[input.item()])
    print(kind, " ".join(words), "ppl", math.exp(loss), scheduler.get_last_lr())
    results[name] = loss
print(" ".join(f"{k.lower()} {v:.4f}" for k, v in results.items()))

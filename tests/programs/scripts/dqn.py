"""Deep Q-learning on a corridor, skip-gram word vectors, text classification with bags of embeddings, and a RealNVP flow."""

import copy
import random
from collections import deque, namedtuple

import torch
import torch.nn as nn
import torch.nn.functional as F
from torch.distributions.multivariate_normal import MultivariateNormal
from torch.utils.data import DataLoader, IterableDataset

random.seed(0)
torch.manual_seed(0)
Transition = namedtuple("Transition", ("state", "action", "next_state", "reward"))


class DQN(nn.Module):
    def __init__(self, n_observations, n_actions):
        super().__init__()
        self.layer1, self.layer2 = nn.Linear(n_observations, 32), nn.Linear(32, n_actions)

    def forward(self, x):
        return self.layer2(F.relu(self.layer1(x)))


policy_net, size = DQN(6, 2), 6
target_net = copy.deepcopy(policy_net)
target_net.load_state_dict(policy_net.state_dict())
optimizer = torch.optim.AdamW(policy_net.parameters(), lr=5e-3, amsgrad=True)
memory, steps_done = deque(maxlen=1000), 0


def optimize_model():
    if len(memory) < 32:
        return
    batch = Transition(*zip(*random.sample(memory, 32)))
    non_final_mask = torch.tensor(tuple(s is not None for s in batch.next_state), dtype=torch.bool)
    non_final_next_states = torch.cat([s for s in batch.next_state if s is not None])
    state_batch, action_batch, reward_batch = torch.cat(batch.state), torch.cat(batch.action), torch.cat(batch.reward)
    state_action_values = policy_net(state_batch).gather(1, action_batch)
    next_state_values = torch.zeros(32)
    with torch.no_grad():
        next_state_values[non_final_mask] = target_net(non_final_next_states).max(1).values
    expected = (next_state_values * 0.9) + reward_batch
    loss = nn.SmoothL1Loss()(state_action_values, expected.unsqueeze(1))
    optimizer.zero_grad()
    loss.backward()
    torch.nn.utils.clip_grad_value_(policy_net.parameters(), 100)
    optimizer.step()
    target_net_state_dict, policy_net_state_dict = target_net.state_dict(), policy_net.state_dict()
    for key in policy_net_state_dict:
        target_net_state_dict[key] = policy_net_state_dict[key] * 0.05 + target_net_state_dict[key] * 0.95
    target_net.load_state_dict(target_net_state_dict)


for _ in range(40):
    place = 2
    for _ in range(30):
        state = F.one_hot(torch.tensor([place]), size).float()
        if random.random() > 0.3:
            with torch.no_grad():
                action = policy_net(state).max(1).indices.view(1, 1)
        else:
            action = torch.tensor([[random.randrange(2)]], dtype=torch.long)
        place = max(place + (1 if action.item() == 1 else -1), 0)
        done = place == size - 1
        next_state = None if done else F.one_hot(torch.tensor([place]), size).float()
        memory.append(Transition(state, action, next_state, torch.tensor([1.0 if done else 0.0])))
        optimize_model()
        if done:
            break
rightward = (policy_net(torch.eye(size))[:-1].argmax(1) == 1).float().mean().item()


class Pairs(IterableDataset):
    """Words that stand together: those of one group."""

    def __iter__(self):
        for _ in range(2000):
            group = random.randrange(4)
            yield group * 5 + random.randrange(5), group * 5 + random.randrange(5)


inputs, outputs = nn.Embedding(20, 8), nn.Embedding(20, 8)
optimizer = torch.optim.Adagrad([*inputs.parameters(), *outputs.parameters()], lr=0.3)
for _ in range(3):
    for center, context in DataLoader(Pairs(), batch_size=100):
        negative = torch.randint(0, 20, (len(center), 5))
        v = inputs(center)
        positive = F.logsigmoid((v * outputs(context)).sum(1))
        others = F.logsigmoid(-torch.bmm(outputs(negative), v.unsqueeze(2)).squeeze(2)).sum(1)
        loss = -(positive + others).mean()
        optimizer.zero_grad(set_to_none=True)
        loss.backward()
        optimizer.step()
vectors = F.normalize(inputs.weight.detach(), dim=1)
similar = (vectors @ vectors.T - 2 * torch.eye(20)).argmax(1) // 5
grouped = (similar == torch.arange(20) // 5).float().mean().item()


class TextClassificationModel(nn.Module):
    def __init__(self, vocab_size, embed_dim, num_class):
        super().__init__()
        self.embedding = nn.EmbeddingBag(vocab_size, embed_dim, sparse=False)
        self.fc = nn.Linear(embed_dim, num_class)
        self.embedding.weight.data.uniform_(-0.5, 0.5)
        self.fc.bias.data.zero_()

    def forward(self, text, offsets):
        return self.fc(self.embedding(text, offsets))


def collate_batch(batch):
    labels, texts, offsets = [], [], [0]
    for label, text in batch:
        labels.append(label)
        texts.append(torch.tensor(text, dtype=torch.int64))
        offsets.append(texts[-1].size(0))
    return torch.tensor(labels), torch.cat(texts), torch.tensor(offsets[:-1]).cumsum(dim=0)


corpus = [(k % 3, [random.choice(range(k % 3 * 4, k % 3 * 4 + 8)) for _ in range(random.randint(3, 9))]) for k in range(300)]
model = TextClassificationModel(16, 8, 3)
optimizer = torch.optim.SGD(model.parameters(), lr=2.0)
scheduler = torch.optim.lr_scheduler.ExponentialLR(optimizer, 0.9)
for _ in range(8):
    for label, text, offsets in DataLoader(corpus, batch_size=16, shuffle=True, collate_fn=collate_batch):
        optimizer.zero_grad()
        loss = F.cross_entropy(model(text, offsets), label)
        loss.backward()
        torch.nn.utils.clip_grad_norm_(model.parameters(), 0.5)
        optimizer.step()
    scheduler.step()
label, text, offsets = collate_batch(corpus)
texts = (model(text, offsets).argmax(1) == label).float().mean().item()


class RealNVP(nn.Module):
    def __init__(self, masks, prior):
        super().__init__()
        self.prior, self.mask = prior, nn.Parameter(masks, requires_grad=False)
        self.t = nn.ModuleList([nn.Sequential(nn.Linear(2, 24), nn.LeakyReLU(), nn.Linear(24, 2)) for _ in range(len(masks))])
        self.s = nn.ModuleList([nn.Sequential(nn.Linear(2, 24), nn.LeakyReLU(), nn.Linear(24, 2), nn.Tanh()) for _ in range(len(masks))])

    def f(self, x):
        log_det_J, z = x.new_zeros(x.shape[0]), x
        for i in reversed(range(len(self.t))):
            z_ = self.mask[i] * z
            s, t = self.s[i](z_) * (1 - self.mask[i]), self.t[i](z_) * (1 - self.mask[i])
            z = (1 - self.mask[i]) * (z - t) * torch.exp(-s) + z_
            log_det_J -= s.sum(dim=1)
        return z, log_det_J

    def log_prob(self, x):
        z, logp = self.f(x)
        return self.prior.log_prob(z) + logp


flow = RealNVP(torch.tensor([[0.0, 1.0], [1.0, 0.0]] * 2), MultivariateNormal(torch.zeros(2), torch.eye(2)))
optimizer = torch.optim.Adam([p for p in flow.parameters() if p.requires_grad], lr=5e-3)
noise = torch.randn(1000, 2)
data = torch.stack([noise[:, 0], noise[:, 0] ** 2 * 0.5 + noise[:, 1] * 0.3], 1)
data = (data - data.mean(0)) / data.std(0)
before = -flow.log_prob(data).mean().item()
for _ in range(120):
    loss = -flow.log_prob(data[torch.randperm(1000)[:200]]).mean()
    optimizer.zero_grad()
    loss.backward()
    optimizer.step()
after = -flow.log_prob(data).mean().item()
print(f"rightward {rightward:.3f} grouped {grouped:.3f} texts {texts:.3f} before {before:.3f} after {after:.3f}")

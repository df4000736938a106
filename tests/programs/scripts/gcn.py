"""Node classification on a graph: messages by index_add_ and scatter, a planted partition, semi-supervised."""

import torch
import torch.nn as nn
import torch.nn.functional as F
from torch.nn import Parameter

torch.manual_seed(42)
nodes, classes = 150, 3
labels = torch.arange(nodes) % classes
same = labels.unsqueeze(0) == labels.unsqueeze(1)
chance = torch.where(same, torch.tensor(0.12), torch.tensor(0.01))
adjacency = torch.triu(torch.rand(nodes, nodes) < chance, diagonal=1)
edge_index = adjacency.nonzero().t()
edge_index = torch.cat([edge_index, edge_index.flip(0)], dim=1)
features = F.one_hot(labels, classes).float() + torch.randn(nodes, classes) * 1.0


def degree(index, n):
    return torch.zeros(n).scatter_add_(0, index, torch.ones(index.numel()))


def scatter_softmax(src, index, n):
    top = torch.full((n,), float("-inf")).scatter_reduce(0, index, src, reduce="amax")
    e = (src - top[index]).exp()
    total = torch.zeros(n).index_add(0, index, e)
    return e / total[index].clamp_min(1e-12)


class GCNConv(nn.Module):
    def __init__(self, inputs, outputs):
        super().__init__()
        self.weight = Parameter(torch.empty(inputs, outputs))
        self.bias = Parameter(torch.empty(outputs))
        self.reset_parameters()

    def reset_parameters(self):
        stdv = 1.0 / self.weight.size(1) ** 0.5
        self.weight.data.uniform_(-stdv, stdv)
        self.bias.data.zero_()

    def forward(self, x, edge_index):
        loops = torch.arange(x.size(0)).repeat(2, 1)
        row, col = torch.cat([edge_index, loops], dim=1)
        norm = degree(col, x.size(0)).pow(-0.5)
        norm[norm == float("inf")] = 0
        messages = (x @ self.weight)[row] * (norm[row] * norm[col]).unsqueeze(-1)
        out = torch.zeros(x.size(0), self.weight.size(1))
        out.index_add_(0, col, messages)
        return out + self.bias

    def extra_repr(self):
        return f"{self.weight.size(0)}, {self.weight.size(1)}"


class GATConv(nn.Module):
    def __init__(self, inputs, outputs):
        super().__init__()
        self.lin = nn.Linear(inputs, outputs, bias=False)
        self.att = Parameter(torch.randn(2, outputs) * 0.1)

    def forward(self, x, edge_index):
        h = self.lin(x)
        row, col = edge_index
        alpha = F.leaky_relu((h * self.att[0]).sum(-1)[row] + (h * self.att[1]).sum(-1)[col], 0.2)
        alpha = scatter_softmax(alpha, col, x.size(0))
        index = col.unsqueeze(-1).expand(-1, h.size(1))
        return torch.zeros_like(h).scatter_add(0, index, h[row] * alpha.unsqueeze(-1)) + h


class Net(nn.Module):
    def __init__(self, conv):
        super().__init__()
        self.conv1, self.conv2 = conv(classes, 16), conv(16, classes)

    def forward(self, x):
        x = F.relu(self.conv1(x, edge_index))
        x = F.dropout(x, p=0.3, training=self.training)
        return F.log_softmax(self.conv2(x, edge_index), dim=1)


train_mask = torch.zeros(nodes, dtype=torch.bool)
train_mask[torch.randperm(nodes)[:45]] = True
results = []
for conv in (GCNConv, GATConv):
    model = Net(conv)
    print(model)
    optimizer = torch.optim.Adam(
        [dict(params=model.conv1.parameters(), weight_decay=5e-4), dict(params=model.conv2.parameters(), weight_decay=0)],
        lr=0.02,
    )
    for _ in range(100):
        model.train()
        optimizer.zero_grad()
        loss = F.nll_loss(model(features)[train_mask], labels[train_mask])
        loss.backward()
        optimizer.step()
    model.eval()
    with torch.no_grad():
        pred = model(features).max(dim=1)[1]
    results += [loss.item(), (pred[~train_mask] == labels[~train_mask]).float().mean().item()]

# the same graph as a sparse matrix of values and compressed rows, multiplied by hand
pooled = torch.zeros(classes, classes).index_put_((labels,), features, accumulate=True) / torch.bincount(labels).unsqueeze(1)
assert torch.allclose(pooled, torch.stack([features[labels == c].mean(0) for c in range(classes)]), atol=1e-5)
print("gcn {:.4f} gcn_accuracy {:.3f} gat {:.4f} gat_accuracy {:.3f}".format(*results))

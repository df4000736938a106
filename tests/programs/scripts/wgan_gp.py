"""Second derivatives in training: a critic with a gradient penalty, a physics-informed network, and meta-learning by unrolling."""

import math

import numpy as np
import torch
import torch.autograd as autograd
import torch.nn as nn
from torch.autograd import Variable
from torch.func import functional_call, grad, vmap

torch.manual_seed(0)

# a Wasserstein GAN with a gradient penalty learns a ring of points
G = nn.Sequential(nn.Linear(2, 32), nn.ReLU(), nn.Linear(32, 32), nn.ReLU(), nn.Linear(32, 2))
D = nn.Sequential(nn.Linear(2, 32), nn.LeakyReLU(0.2), nn.Linear(32, 32), nn.LeakyReLU(0.2), nn.Linear(32, 1))
optimizer_G = torch.optim.Adam(G.parameters(), lr=2e-3, betas=(0.5, 0.9))
optimizer_D = torch.optim.Adam(D.parameters(), lr=2e-3, betas=(0.5, 0.9))


def real_points(n):
    angle = torch.rand(n) * 2 * math.pi
    return torch.stack((angle.cos(), angle.sin()), dim=1)


def compute_gradient_penalty(D, real_samples, fake_samples):
    alpha = torch.Tensor(np.random.random((real_samples.size(0), 1)))
    interpolates = (alpha * real_samples + ((1 - alpha) * fake_samples)).requires_grad_(True)
    d_interpolates = D(interpolates)
    fake = Variable(torch.Tensor(real_samples.shape[0], 1).fill_(1.0), requires_grad=False)
    gradients = autograd.grad(
        outputs=d_interpolates, inputs=interpolates, grad_outputs=fake, create_graph=True, retain_graph=True, only_inputs=True
    )[0]
    gradients = gradients.view(gradients.size(0), -1)
    return ((gradients.norm(2, dim=1) - 1) ** 2).mean()


np.random.seed(0)
for step in range(150):
    real = real_points(64)
    fake = G(torch.randn(64, 2)).detach()
    penalty = compute_gradient_penalty(D, real.data, fake.data)
    d_loss = -torch.mean(D(real)) + torch.mean(D(fake)) + 10 * penalty
    optimizer_D.zero_grad()
    d_loss.backward()
    optimizer_D.step()
    if step % 3 == 0:
        for p in D.parameters():
            p.requires_grad_(False)
        g_loss = -torch.mean(D(G(torch.randn(64, 2))))
        optimizer_G.zero_grad()
        g_loss.backward()
        optimizer_G.step()
        for p in D.parameters():
            p.requires_grad_(True)
assert G(torch.randn(500, 2)).norm(dim=1).mean() < 5

# a network that solves u'' = -u, u(0) = 0, u'(0) = 1
net = nn.Sequential(nn.Linear(1, 20), nn.Tanh(), nn.Linear(20, 20), nn.Tanh(), nn.Linear(20, 1))
x = torch.linspace(0, 2, 30).view(-1, 1).requires_grad_()
optimizer = torch.optim.LBFGS(net.parameters(), lr=1.0, max_iter=80, line_search_fn="strong_wolfe")


def closure():
    optimizer.zero_grad()
    u = net(x)
    du = autograd.grad(u, x, torch.ones_like(u), create_graph=True)[0]
    ddu = autograd.grad(du.sum(), x, create_graph=True)[0]
    loss = (ddu + u).pow(2).mean() + u[0].pow(2).sum() + (du[0] - 1).pow(2).sum()
    loss.backward()
    return loss


optimizer.step(closure)
with torch.no_grad():
    equation = (net(x) - x.sin()).abs().max().item()

# learning to learn: one gradient step on each of many tasks, differentiated, all tasks at once
meta = nn.Sequential(nn.Linear(1, 24), nn.Tanh(), nn.Linear(24, 1))
params = dict(meta.named_parameters())
meta_optimizer = torch.optim.Adam(params.values(), lr=0.01)


def mse(params, x, y):
    return (functional_call(meta, params, (x,)) - y).pow(2).mean()


def adapted_loss(params, x, y, x2, y2):
    step = grad(mse)(params, x, y)
    return mse({k: p - 0.1 * step[k] for k, p in params.items()}, x2, y2)


losses = []
for _ in range(150):
    amplitude = torch.rand(16, 1, 1) * 2 + 0.5
    xs, xs2 = torch.rand(2, 16, 10, 1).mul(4).sub(2).unbind(0)
    loss = vmap(adapted_loss, in_dims=(None, 0, 0, 0, 0))(params, xs, amplitude * xs.sin(), xs2, amplitude * xs2.sin()).mean()
    meta_optimizer.zero_grad()
    loss.backward()
    meta_optimizer.step()
    losses.append(loss.item())
print(f"penalty {penalty.item():.4f} equation {equation:.4f} first {np.mean(losses[:5]):.4f} last {np.mean(losses[-10:]):.4f}")

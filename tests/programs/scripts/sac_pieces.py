"""What soft actor-critic, latent variable models and Bayesian fits use of torch.distributions, fitted to data with known answers."""

import math

import torch
import torch.distributions as D
import torch.nn as nn
from torch.distributions import Beta, Dirichlet, Gamma, Independent, MultivariateNormal, Normal, kl_divergence
from torch.distributions.transforms import AffineTransform, TanhTransform

torch.manual_seed(0)

# a squashed policy that maximizes reward plus entropy, through rsample
target = torch.tensor([0.5, -0.3])
mean, log_std = nn.Parameter(torch.zeros(2)), nn.Parameter(torch.zeros(2))
log_alpha = torch.zeros(1, requires_grad=True)
optimizer = torch.optim.Adam([mean, log_std], lr=0.05)
alpha_optimizer = torch.optim.Adam([log_alpha], lr=0.02)
for _ in range(150):
    base = Normal(mean, log_std.clamp(-5, 2).exp())
    policy = D.TransformedDistribution(base, [TanhTransform(cache_size=1), AffineTransform(0.0, 1.0)])
    action = policy.rsample((64,))
    log_prob = policy.log_prob(action).sum(-1)
    loss = (log_alpha.exp().detach() * 0.01 * log_prob + (action - target).square().sum(-1)).mean()
    optimizer.zero_grad()
    loss.backward()
    optimizer.step()
    alpha_loss = -(log_alpha * (log_prob.detach() - 2.0)).mean()
    alpha_optimizer.zero_grad()
    alpha_loss.backward()
    alpha_optimizer.step()
policy_error = (torch.tanh(mean) - target).abs().max().item()

# maximum likelihood of a gamma and a beta distribution, by the gradients of log_prob
data, shares = Gamma(3.0, 2.0).sample((2000,)), Beta(2.0, 5.0).sample((2000,))
raw = nn.Parameter(torch.zeros(4))
optimizer = torch.optim.LBFGS([raw], max_iter=50, line_search_fn="strong_wolfe")


def closure():
    optimizer.zero_grad()
    a, b, c, d = nn.functional.softplus(raw)
    loss = -(Gamma(a, b).log_prob(data).mean() + Beta(c, d).log_prob(shares).mean())
    loss.backward()
    return loss


optimizer.step(closure)
fitted = nn.functional.softplus(raw).detach()

# variational inference of a Bernoulli probability: the posterior of 7 of 10 is Beta(8, 4); pathwise gradients through Beta
q_raw = nn.Parameter(torch.tensor([1.0, 1.0]))
optimizer = torch.optim.Adam([q_raw], lr=0.05)
flips = torch.tensor([1.0] * 7 + [0.0] * 3)
for _ in range(200):
    q = Beta(*nn.functional.softplus(q_raw) + 0.01)
    p = q.rsample((64,))
    likelihood = D.Bernoulli(probs=p.unsqueeze(-1)).log_prob(flips).sum(-1).mean()
    elbo = likelihood - kl_divergence(q, Beta(1.0, 1.0))
    optimizer.zero_grad()
    (-elbo).backward()
    optimizer.step()
evidence = math.lgamma(8) + math.lgamma(4) - math.lgamma(12)
posterior_mean = q.mean.item()

# topics: a Dirichlet and multivariate normals with a learned factor
mixture = Dirichlet(torch.full((3, 4), 0.5)).rsample((5,))
assert mixture.shape == (5, 3, 4) and torch.allclose(mixture.sum(-1), torch.ones(5, 3))
true = MultivariateNormal(torch.tensor([1.0, -1.0]), covariance_matrix=torch.tensor([[2.0, 0.8], [0.8, 1.0]]))
points = true.sample((1000,))
loc, tril = nn.Parameter(torch.zeros(2)), nn.Parameter(torch.eye(2))
optimizer = torch.optim.Adam([loc, tril], lr=0.05)
for _ in range(100):
    fit = MultivariateNormal(loc, scale_tril=torch.tril(tril, -1) + torch.diag(nn.functional.softplus(tril.diagonal())))
    loss = -fit.log_prob(points).mean()
    optimizer.zero_grad()
    loss.backward()
    optimizer.step()
divergence = kl_divergence(true, fit).item()
assert Independent(Normal(torch.zeros(3, 2), 1.0), 1).log_prob(points[:3]).shape == (3,)

# the constrained parameters of a mixture, and a differentiable choice
mix = D.MixtureSameFamily(D.Categorical(torch.tensor([0.3, 0.7])), Normal(torch.tensor([-2.0, 2.0]), torch.tensor([0.5, 0.5])))
assert abs(mix.sample((4000,)).mean().item() - 0.8) < 0.2
soft = D.RelaxedOneHotCategorical(torch.tensor(0.5), logits=torch.zeros(3, requires_grad=True)).rsample((2,))
assert soft.requires_grad and soft.shape == (2, 3)
print(
    f"policy_error {policy_error:.4f} gamma {fitted[0]:.3f} rate {fitted[1]:.3f} beta {fitted[3]:.3f} elbo {elbo.item() - evidence:.4f} "
    f"posterior {posterior_mean:.4f} divergence {divergence:.4f}"
)

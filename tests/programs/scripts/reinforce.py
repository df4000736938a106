"""Policy gradient (REINFORCE) and actor-critic on a pole that must be balanced, with Categorical."""

import math
import random
from collections import deque, namedtuple
from itertools import count

import numpy as np
import torch
import torch.nn as nn
import torch.nn.functional as F
import torch.optim as optim
from torch.distributions import Categorical


class CartPole:
    """A pole on a cart, simplified to one file."""

    def reset(self, seed=None):
        self.rng = np.random.default_rng(seed) if seed is not None else self.rng
        self.state, self.steps = self.rng.uniform(-0.05, 0.05, 4), 0
        return self.state.astype(np.float32), {}

    def step(self, action):
        x, v, angle, spin = self.state
        force = 10.0 if action == 1 else -10.0
        temp = (force + 0.05 * spin**2 * math.sin(angle)) / 1.1
        angular = (9.8 * math.sin(angle) - math.cos(angle) * temp) / (0.5 * (4.0 / 3.0 - 0.1 * math.cos(angle) ** 2 / 1.1))
        linear = temp - 0.05 * angular * math.cos(angle) / 1.1
        self.state = np.array([x + 0.02 * v, v + 0.02 * linear, angle + 0.02 * spin, spin + 0.02 * angular])
        self.steps += 1
        done = abs(self.state[0]) > 2.4 or abs(self.state[2]) > 0.21
        return self.state.astype(np.float32), 1.0, bool(done), self.steps >= 200, {}


SavedAction = namedtuple("SavedAction", ["log_prob", "value"])
env = CartPole()
env.reset(seed=543)
torch.manual_seed(543)
random.seed(543)


class Policy(nn.Module):
    def __init__(self):
        super().__init__()
        self.affine1 = nn.Linear(4, 64)
        self.action_head = nn.Linear(64, 2)
        self.value_head = nn.Linear(64, 1)
        self.saved_actions = []
        self.rewards = []

    def forward(self, x):
        x = F.relu(self.affine1(x))
        return F.softmax(self.action_head(x), dim=-1), self.value_head(x)


model = Policy()
optimizer = optim.Adam(model.parameters(), lr=1e-2)
eps = np.finfo(np.float32).eps.item()


def select_action(state):
    state = torch.from_numpy(state).float()
    probs, state_value = model(state)
    m = Categorical(probs)
    action = m.sample()
    model.saved_actions.append(SavedAction(m.log_prob(action), state_value))
    return action.item(), m.entropy().item()


def finish_episode():
    R = 0
    policy_losses, value_losses = [], []
    returns = deque()
    for r in model.rewards[::-1]:
        R = r + 0.99 * R
        returns.appendleft(R)
    returns = torch.tensor(returns)
    returns = (returns - returns.mean()) / (returns.std() + eps)
    for (log_prob, value), R in zip(model.saved_actions, returns):
        advantage = R - value.item()
        policy_losses.append(-log_prob * advantage)
        value_losses.append(F.smooth_l1_loss(value, torch.tensor([R])))
    optimizer.zero_grad()
    loss = torch.stack(policy_losses).sum() + torch.stack(value_losses).sum()
    loss.backward()
    optimizer.step()
    del model.rewards[:]
    del model.saved_actions[:]


lengths, entropies = [], []
for i_episode in count(1):
    state, _ = env.reset()
    for _ in range(1, 200):
        action, entropy = select_action(state)
        state, reward, done, truncated, _ = env.step(action)
        model.rewards.append(reward)
        entropies.append(entropy)
        if done or truncated:
            break
    lengths.append(len(model.rewards))
    finish_episode()
    if i_episode % 20 == 0:
        print(f"Episode {i_episode}\tLast length: {lengths[-1]}\tAverage length: {np.mean(lengths[-20:]):.2f}")
    if i_episode == 60:
        break
print(f"first {np.mean(lengths[:10]):.2f} last {np.mean(lengths[-15:]):.2f} entropy {np.mean(entropies[:50]):.3f}")

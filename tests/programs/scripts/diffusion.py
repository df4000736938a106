"""A denoising diffusion model with a small U-Net: sinusoidal time embedding, group norm, attention, averaged weights, sampling."""

import argparse
import copy
import math

import numpy as np
import torch
import torch.nn.functional as F
from torch import einsum, nn


def exists(x):
    return x is not None


def extract(a, t, x_shape):
    out = a.gather(-1, t)
    return out.reshape(t.shape[0], *((1,) * (len(x_shape) - 1)))


class SinusoidalPosEmb(nn.Module):
    def __init__(self, dim):
        super().__init__()
        self.dim = dim

    def forward(self, x):
        half = self.dim // 2
        emb = torch.exp(torch.arange(half, device=x.device) * -(math.log(10000) / (half - 1)))
        emb = x[:, None] * emb[None, :]
        return torch.cat((emb.sin(), emb.cos()), dim=-1)


class ResnetBlock(nn.Module):
    def __init__(self, dim, dim_out, time_dim):
        super().__init__()
        self.mlp = nn.Sequential(nn.SiLU(), nn.Linear(time_dim, dim_out * 2))
        self.norm1, self.conv1 = nn.GroupNorm(4, dim), nn.Conv2d(dim, dim_out, 3, padding=1)
        self.norm2, self.conv2 = nn.GroupNorm(4, dim_out), nn.Conv2d(dim_out, dim_out, 3, padding=1)
        self.res_conv = nn.Conv2d(dim, dim_out, 1) if dim != dim_out else nn.Identity()

    def forward(self, x, time_emb):
        scale, shift = self.mlp(time_emb)[:, :, None, None].chunk(2, dim=1)
        h = self.conv1(F.silu(self.norm1(x)))
        h = self.norm2(h) * (scale + 1) + shift
        return self.conv2(F.silu(h)) + self.res_conv(x)


class LinearAttention(nn.Module):
    def __init__(self, dim, heads=2, dim_head=8):
        super().__init__()
        self.scale, self.heads = dim_head**-0.5, heads
        self.to_qkv = nn.Conv2d(dim, heads * dim_head * 3, 1, bias=False)
        self.to_out = nn.Conv2d(heads * dim_head, dim, 1)

    def forward(self, x):
        b, _, h, w = x.shape
        q, k, v = (t.reshape(b, self.heads, -1, h * w) for t in self.to_qkv(x).chunk(3, dim=1))
        q, k = q.softmax(dim=-2) * self.scale, k.softmax(dim=-1)
        context = einsum("b h d n, b h e n -> b h d e", k, v)
        out = einsum("b h d e, b h d n -> b h e n", context, q)
        return x + self.to_out(out.contiguous().view(b, -1, h, w))


class Unet(nn.Module):
    def __init__(self, dim=16):
        super().__init__()
        time_dim = dim * 2
        self.time_mlp = nn.Sequential(SinusoidalPosEmb(dim), nn.Linear(dim, time_dim), nn.GELU(), nn.Linear(time_dim, time_dim))
        self.init_conv = nn.Conv2d(1, dim, 3, padding=1)
        self.down1, self.down2 = ResnetBlock(dim, dim, time_dim), ResnetBlock(dim * 2, dim * 2, time_dim)
        self.downsample = nn.Conv2d(dim, dim * 2, 4, 2, 1)
        self.mid = LinearAttention(dim * 2)
        self.upsample = nn.Sequential(nn.Upsample(scale_factor=2, mode="nearest"), nn.Conv2d(dim * 2, dim, 3, padding=1))
        self.up1 = ResnetBlock(dim * 2, dim, time_dim)
        self.final_conv = nn.Conv2d(dim, 1, 1)

    def forward(self, x, time):
        t = self.time_mlp(time)
        skip = self.down1(self.init_conv(x), t)
        h = self.mid(self.down2(self.downsample(skip), t))
        return self.final_conv(self.up1(torch.cat((self.upsample(h), skip), dim=1), t))


parser = argparse.ArgumentParser()
parser.add_argument("--data", required=True)
args = parser.parse_args()
torch.manual_seed(0)
images = torch.from_numpy(np.loadtxt(args.data, delimiter=",", dtype=np.float32)[:, :64]).view(-1, 1, 8, 8) / 8 - 1
timesteps = 25
betas = torch.linspace(0.004, 0.4, timesteps, dtype=torch.float64)
alphas = 1.0 - betas
alphas_cumprod = torch.cumprod(alphas, dim=0)
alphas_cumprod_prev = F.pad(alphas_cumprod[:-1], (1, 0), value=1.0)
posterior_variance = (betas * (1.0 - alphas_cumprod_prev) / (1.0 - alphas_cumprod)).float()
sqrt_acp, sqrt_1macp = alphas_cumprod.sqrt().float(), (1 - alphas_cumprod).sqrt().float()
model = Unet()
ema = copy.deepcopy(model).requires_grad_(False)
optimizer = torch.optim.AdamW(model.parameters(), lr=3e-3)
scheduler = torch.optim.lr_scheduler.LambdaLR(optimizer, lambda step: min((step + 1) / 10, 1.0))
losses = []
for _ in range(70):
    x_start = images[torch.randint(0, len(images), (32,))]
    t = torch.randint(0, timesteps, (32,)).long()
    noise = torch.randn_like(x_start)
    x = extract(sqrt_acp, t, x_start.shape) * x_start + extract(sqrt_1macp, t, x_start.shape) * noise
    loss = F.mse_loss(model(x, t), noise)
    optimizer.zero_grad()
    loss.backward()
    torch.nn.utils.clip_grad_norm_(model.parameters(), 1.0)
    optimizer.step()
    scheduler.step()
    with torch.no_grad():
        for p, q in zip(ema.parameters(), model.parameters()):
            p.lerp_(q, 0.1)
    losses.append(loss.item())

with torch.no_grad():
    x = torch.randn(32, 1, 8, 8)
    for i in reversed(range(timesteps)):
        t = torch.full((32,), i, dtype=torch.long)
        mean = (x - betas[i].float() / sqrt_1macp[i] * ema(x, t)) / alphas[i].float().sqrt()
        x = mean + (posterior_variance[i].sqrt() * torch.randn_like(x) if i > 0 else 0)
gap = (x.clamp(-1, 1).mean(0) - images.mean(0)).abs().mean().item()
print(f"first {np.mean(losses[:5]):.4f} last {np.mean(losses[-20:]):.4f} gap {gap:.4f}")

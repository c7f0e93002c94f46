"""Sequence models as people write them: recurrent nets, transformers, attention by hand, mixers."""

from __future__ import annotations

import math
from typing import Any

import torch
import torch.nn.functional as F
from people import Catalogue, Net, sequence, tokens
from torch import Tensor, nn

ENTRIES = Catalogue()


class Tagger(nn.Module):
    def __init__(self, cell: type[nn.Module], use: str, **options: Any) -> None:
        super().__init__()
        self.use = use
        self.embed = nn.Embedding(5, 8)
        self.rnn = cell(8, 6, batch_first=True, **options)
        self.fc = nn.Linear(6 * (2 if options.get("bidirectional") else 1), 3)

    def forward(self, words: Tensor) -> Tensor:
        out, hidden = self.rnn(self.embed(words))
        hidden = hidden[0] if isinstance(hidden, tuple) else hidden
        pooled = {"all": out, "mean": out.mean(1), "last": hidden[-1], "end": out[:, -1]}[self.use]
        return self.fc(pooled)


@ENTRIES.add(tokens, 0.9)
def lstm_all_outputs() -> nn.Module:
    return Tagger(nn.LSTM, "all")


@ENTRIES.add(tokens, 0.9)
def lstm_two_layers_both_ways_mean() -> nn.Module:
    return Tagger(nn.LSTM, "mean", num_layers=2, bidirectional=True)


@ENTRIES.add(tokens, 0.9)
def lstm_three_layers_last_state() -> nn.Module:
    return Tagger(nn.LSTM, "last", num_layers=3)


@ENTRIES.add(tokens, 0.9)
def gru_last_output() -> nn.Module:
    return Tagger(nn.GRU, "end")


@ENTRIES.add(tokens, 0.9)
def gru_both_ways_no_bias() -> nn.Module:
    return Tagger(nn.GRU, "all", bidirectional=True, bias=False)


@ENTRIES.add(tokens, 0.9)
def rnn_two_layers() -> nn.Module:
    return Tagger(nn.RNN, "end", num_layers=2, nonlinearity="relu")


@ENTRIES.add(sequence, 0.9)
def lstm_between_lstms() -> nn.Module:
    def forward(m: Any, x: Tensor) -> Tensor:
        return m.fc(m.c(m.b(m.a(x)[0])[0])[0])

    lstms = {n: nn.LSTM(i, 6, batch_first=True) for n, i in (("a", 8), ("b", 6), ("c", 6))}
    return Net(forward, **lstms, fc=nn.Linear(6, 2))


@ENTRIES.add(sequence, 0.9)
def lstm_with_projection() -> nn.Module:
    def forward(m: Any, x: Tensor) -> Tensor:
        return m.fc(m.rnn(x)[0])

    return Net(forward, rnn=nn.LSTM(8, 6, proj_size=4, batch_first=True), fc=nn.Linear(4, 2))


@ENTRIES.add(lambda: (sequence(), (torch.zeros(1, 1, 6), torch.zeros(1, 1, 6))), 0.0, expected="input of the model")
def lstm_with_given_state() -> nn.Module:
    def forward(m: Any, x: Tensor, state: tuple[Tensor, Tensor]) -> Tensor:
        return m.fc(m.rnn(x, state)[0])

    return Net(forward, rnn=nn.LSTM(8, 6, batch_first=True), fc=nn.Linear(6, 2))


@ENTRIES.add(sequence, 0.9)
def encoder_decoder_lstm() -> nn.Module:
    def forward(m: Any, x: Tensor) -> Tensor:
        _, state = m.encoder(x)
        return m.fc(m.decoder(x.flip(1), state)[0])

    return Net(
        forward,
        encoder=nn.LSTM(8, 6, batch_first=True),
        decoder=nn.LSTM(8, 6, batch_first=True),
        fc=nn.Linear(6, 2),
    )


@ENTRIES.add(sequence, 0.9)
def cells_in_a_loop() -> nn.Module:
    def forward(m: Any, x: Tensor) -> Tensor:
        h1, (h2, c2) = x.new_zeros(x.size(0), m.one.hidden_size), (None, None)
        outs = []
        for t in range(x.size(1)):
            h1 = m.one(x[:, t], h1)
            h2, c2 = m.two(h1) if h2 is None else m.two(h1, (h2, c2))
            outs.append(m.three(h2))
        return m.fc(torch.stack(outs, 1))

    return Net(forward, one=nn.GRUCell(8, 6), two=nn.LSTMCell(6, 5), three=nn.RNNCell(5, 4), fc=nn.Linear(4, 2))


@ENTRIES.add(tokens, 0.9)
def tied_embedding_and_output() -> nn.Module:
    def forward(m: Any, words: Tensor) -> Tensor:
        return F.linear(F.relu(m.fc(m.embed(words))), m.embed.weight)

    return Net(forward, embed=nn.Embedding(5, 8), fc=nn.Linear(8, 8))


class TiedModules(nn.Module):
    def __init__(self) -> None:
        super().__init__()
        self.embed, self.fc = nn.Embedding(5, 8), nn.Linear(8, 12)
        self.back, self.out = nn.Linear(12, 8), nn.Linear(8, 5)
        self.out.weight = self.embed.weight

    def forward(self, words: Tensor) -> Tensor:
        return self.out(self.back(F.gelu(self.fc(self.embed(words)))))


@ENTRIES.add(tokens, 0.9)
def tied_modules() -> nn.Module:
    return TiedModules()


@ENTRIES.add(lambda: (torch.tensor([0, 2, 4, 1]), torch.tensor([0, 2])), 0.9)
def embedding_bag() -> nn.Module:
    def forward(m: Any, words: Tensor, offsets: Tensor) -> Tensor:
        return m.fc(F.relu(m.hidden(m.bag(words, offsets))))

    return Net(forward, bag=nn.EmbeddingBag(5, 8), hidden=nn.Linear(8, 6), fc=nn.Linear(6, 2))


@ENTRIES.add(sequence, 0.3, comparable=False)
def transformer_encoder() -> nn.Module:
    layer = nn.TransformerEncoderLayer(8, 2, 16, batch_first=True, dropout=0.0)
    return nn.Sequential(nn.TransformerEncoder(layer, 2, enable_nested_tensor=False), nn.Linear(8, 2))


@ENTRIES.add(lambda: (sequence(), torch.randn(1, 4, 8)), 0.3, comparable=False)
def transformer_decoder() -> nn.Module:
    layer = nn.TransformerDecoderLayer(8, 2, 16, batch_first=True, norm_first=True, dropout=0.0)

    def forward(m: Any, target: Tensor, memory: Tensor) -> Tensor:
        mask = nn.Transformer.generate_square_subsequent_mask(target.size(1), device=target.device)
        return m.fc(m.decoder(target, memory, tgt_mask=mask, tgt_is_causal=True))

    return Net(forward, decoder=nn.TransformerDecoder(layer, 2), fc=nn.Linear(8, 2))


@ENTRIES.add(sequence, 0.0)
def multihead_attention() -> nn.Module:
    def forward(m: Any, x: Tensor) -> tuple[Tensor, Tensor]:
        out, weights = m.mha(x, x, x)
        return m.fc(out), weights

    return Net(forward, mha=nn.MultiheadAttention(8, 2, batch_first=True), fc=nn.Linear(8, 2))


class Attention(nn.Module):
    def __init__(self, kind: str) -> None:
        super().__init__()
        self.kind, self.heads = kind, 2
        self.qkv = nn.Linear(8, 24)
        self.proj, self.fc = nn.Linear(8, 8), nn.Linear(8, 2)
        self.register_buffer("mask", torch.ones(16, 16).tril().bool(), persistent=False)

    def forward(self, x: Tensor) -> Tensor:
        b, n, c = x.shape
        q, k, v = self.qkv(x).reshape(b, n, 3, self.heads, c // self.heads).permute(2, 0, 3, 1, 4)
        if self.kind == "sdpa":
            y = F.scaled_dot_product_attention(q, k, v, is_causal=True)
        elif self.kind == "einsum":
            a = torch.einsum("bhid,bhjd->bhij", q, k) / math.sqrt(q.size(-1))
            y = torch.einsum("bhij,bhjd->bhid", a.softmax(-1), v)
        elif self.kind == "linear":
            y = F.relu(q) @ (F.relu(k).transpose(-2, -1) @ v)
        else:
            a = (q @ k.transpose(-2, -1)).masked_fill(~self.mask[:n, :n], float("-inf"))
            y = a.softmax(-1) @ v
        return self.fc(x + self.proj(y.transpose(1, 2).reshape(b, n, c)))


@ENTRIES.add(sequence, 0.0)
def attention_sdpa() -> nn.Module:
    return Attention("sdpa")


@ENTRIES.add(sequence, 0.0)
def attention_einsum() -> nn.Module:
    return Attention("einsum")


@ENTRIES.add(sequence, 0.0, expected="two neuron axes", same_macs=False)  # the product of locked neurons is not counted
def attention_linear() -> nn.Module:
    return Attention("linear")


@ENTRIES.add(sequence, 0.0)
def attention_matmul_masked() -> nn.Module:
    return Attention("matmul")


@ENTRIES.add(sequence, 0.0)
def attention_grouped_queries() -> nn.Module:
    def forward(m: Any, x: Tensor) -> Tensor:
        b, n, _ = x.shape
        q = m.q(x).view(b, n, 4, 2).transpose(1, 2)
        k, v = (p(x).view(b, n, 2, 2).transpose(1, 2).repeat_interleave(2, dim=1) for p in (m.k, m.v))
        return m.fc(F.scaled_dot_product_attention(q, k, v).transpose(1, 2).flatten(2))

    return Net(forward, q=nn.Linear(8, 8), k=nn.Linear(8, 4), v=nn.Linear(8, 4), fc=nn.Linear(8, 2))


def rotate(x: Tensor) -> Tensor:
    angles = torch.outer(torch.arange(x.size(1), device=x.device).float(), 0.1 ** torch.arange(2, device=x.device))
    a, b = x.unflatten(-1, (2, 2)).unbind(-2)
    return torch.cat([a * angles.cos() - b * angles.sin(), a * angles.sin() + b * angles.cos()], -1)


@ENTRIES.add(sequence, 0.1)
def attention_rotary_and_bias() -> nn.Module:
    def forward(m: Any, x: Tensor) -> Tensor:
        q, k, v = rotate(m.q(x)), rotate(m.k(x)), m.v(x)
        where = torch.arange(x.size(1))[:, None] - torch.arange(x.size(1))[None] + 8
        scores = q @ k.transpose(1, 2) + m.bias[where]
        return m.fc(scores.softmax(-1) @ v)

    parts = {"q": nn.Linear(8, 4), "k": nn.Linear(8, 4), "v": nn.Linear(8, 6), "fc": nn.Linear(6, 2)}
    return Net(forward, **parts, bias=nn.Parameter(torch.randn(17)))


@ENTRIES.add(sequence, 0.1, expected="computed from other parameters")
def attention_to_relative_positions() -> nn.Module:
    def forward(m: Any, x: Tensor) -> Tensor:
        q, k, v = m.q(x), m.k(x), m.v(x)
        distance = torch.arange(x.size(1))[:, None] - torch.arange(x.size(1))[None] + x.size(1) - 1
        scores = q @ k.transpose(1, 2) + torch.einsum("bqc,qkc->bqk", q, m.relative[distance])
        return m.fc(scores.softmax(-1) @ v)

    parts = {"q": nn.Linear(8, 4), "k": nn.Linear(8, 4), "v": nn.Linear(8, 6), "fc": nn.Linear(6, 2)}
    return Net(forward, **parts, relative=nn.Parameter(torch.randn(11, 4)))


@ENTRIES.add(sequence, 0.9, comparable=False)
def class_token_and_positions() -> nn.Module:
    def forward(m: Any, x: Tensor) -> Tensor:
        x = torch.cat([m.cls.expand(x.size(0), -1, -1), m.embed(x)], 1) + m.position[:, : x.size(1) + 1]
        x = x + m.down(F.gelu(m.up(m.norm(x))))
        return m.fc(x[:, 0])

    parts = {"embed": nn.Linear(8, 8), "up": nn.Linear(8, 16), "down": nn.Linear(16, 8), "fc": nn.Linear(8, 2)}
    learned = {"cls": nn.Parameter(torch.randn(1, 1, 8)), "position": nn.Parameter(torch.randn(1, 9, 8))}
    return Net(forward, **parts, **learned, norm=nn.LayerNorm(8))


@ENTRIES.add(sequence, 0.5, comparable=False)
def token_mixer() -> nn.Module:
    def forward(m: Any, x: Tensor) -> Tensor:
        x = m.embed(x)
        x = x + m.token2(F.gelu(m.token1(m.norm1(x).transpose(1, 2)))).transpose(1, 2)
        x = x + m.channel(m.norm2(x))
        return m.fc(x.mean(1))

    token = {"token1": nn.Linear(6, 5), "token2": nn.Linear(5, 6)}
    channel = nn.Sequential(nn.Linear(8, 12), nn.GELU(), nn.Linear(12, 8))
    norms = {"norm1": nn.LayerNorm(8), "norm2": nn.LayerNorm(8)}
    return Net(forward, embed=nn.Linear(8, 8), **token, channel=channel, **norms, fc=nn.Linear(8, 2))


@ENTRIES.add(sequence, 0.8, comparable=False)
def swiglu_and_rms_norm() -> nn.Module:
    def forward(m: Any, x: Tensor) -> Tensor:
        x = m.embed(x)
        h = m.norm(x)
        x = x + m.down(F.silu(m.gate(h)) * m.up(h))
        return m.fc(x + F.glu(m.packed(x), dim=-1))

    parts = {"gate": nn.Linear(8, 12), "up": nn.Linear(8, 12), "down": nn.Linear(12, 8), "packed": nn.Linear(8, 16)}
    return Net(forward, embed=nn.Linear(8, 8), norm=nn.RMSNorm(8), **parts, fc=nn.Linear(8, 2))


@ENTRIES.add(sequence, 0.6)
def random_field_scores() -> nn.Module:
    def forward(m: Any, x: Tensor) -> Tensor:
        emit = m.emit(F.relu(m.hidden(x)))
        alpha = m.start + emit[:, 0]
        for t in range(1, x.size(1)):
            alpha = torch.logsumexp(alpha.unsqueeze(2) + m.transitions + emit[:, t].unsqueeze(1), dim=1)
        return torch.logsumexp(alpha, dim=1)

    learned = {"start": nn.Parameter(torch.randn(4)), "transitions": nn.Parameter(torch.randn(4, 4))}
    return Net(forward, hidden=nn.Linear(8, 6), emit=nn.Linear(6, 4), **learned)

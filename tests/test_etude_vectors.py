import torch

from pegbox.models.etude.pretrain import Corpus, build_tokenizer
from pegbox.models.etude.pretrain._vectors import first_vectors


def test_first_vectors_are_seeded_and_lean_to_their_verdicts():
    tokenizer = build_tokenizer("causal", 3, rows=3000)
    corpus = Corpus(tokenizer, 3, 120, 1024, 120)
    vectors = first_vectors(corpus, tokenizer, 64, 0.02, 5)
    assert torch.equal(vectors, first_vectors(corpus, tokenizer, 64, 0.02, 5))
    assert not torch.equal(vectors, first_vectors(corpus, tokenizer, 64, 0.02, 6))
    assert vectors.shape == (4096, 64)
    assert torch.isfinite(vectors).all()

    def similarity(one, two):
        rows = [vectors[tokenizer(word, add_special_tokens=False).input_ids[0]] for word in (one, two)]
        return float(torch.cosine_similarity(*rows, dim=0))

    # Members of one class share a direction twice the size of the random part; 64 random entries correlate
    # with a standard deviation of 1/8, so 0.4 lies well outside chance.
    assert similarity(" great", " good") > 0.4
    assert similarity(" terrible", " bad") > 0.4
    assert similarity(" great", " terrible") < similarity(" great", " good") - 0.3

"""emo_jax: a hybrid deep model that recognises emotion from sound and face, after Zhang et al. (TCSVT 2018)."""

"""vLLM, and SGLang as a variant.

dialect   requests and answers of a server     body   what a request says
errors    what its refusals mean
"""

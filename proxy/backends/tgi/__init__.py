"""Hugging Face's text-generation-inference, 3.2 or later (frozen since December 2025).

dialect   requests and answers of a server     chat      a chat request as TGI accepts it
errors    what its refusals mean               schemas   what may reach its grammar compiler
"""
